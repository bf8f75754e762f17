"""``python -m efsgd_jax.sample`` draws synthetic images; from Python, ``efsgd_jax.sample``."""

import sys

from efsgd_jax.runs.programs import draw

if __name__ == "__main__":
    sys.exit(draw())
