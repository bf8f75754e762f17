"""``python -m efsgd_jax.report`` makes a page of a finished run; from Python, ``efsgd_jax.report``."""

import sys

from efsgd_jax.programs.report import main

if __name__ == "__main__":
    sys.exit(main())
