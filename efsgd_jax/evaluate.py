"""``python -m efsgd_jax.evaluate`` scores a finished run; from Python, ``efsgd_jax.evaluate``."""

import sys

from efsgd_jax.runs.programs import score

if __name__ == "__main__":
    sys.exit(score())
