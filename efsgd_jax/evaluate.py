"""``python -m efsgd_jax.evaluate`` scores a finished run; from Python, ``efsgd_jax.evaluate``."""

import sys

from efsgd_jax.programs.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
