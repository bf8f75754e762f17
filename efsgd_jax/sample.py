"""``python -m efsgd_jax.sample`` draws synthetic images; from Python, ``efsgd_jax.sample``."""

import sys

from efsgd_jax.programs.sample import main

if __name__ == "__main__":
    sys.exit(main())
