"""``python -m efsgd_jax.compare`` compares finished runs; from Python, ``efsgd_jax.compare``."""

import sys

from efsgd_jax.programs.compare import main

if __name__ == "__main__":
    sys.exit(main())
