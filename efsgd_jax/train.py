"""``python -m efsgd_jax.train`` trains a generator; from Python, ``efsgd_jax.fit``."""

import sys

from efsgd_jax.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
