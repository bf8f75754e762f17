"""Entry point of ``python -m efsgd_jax.train``, which trains a generator; the Python function is ``efsgd_jax.fit``."""

import sys

from efsgd_jax.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
