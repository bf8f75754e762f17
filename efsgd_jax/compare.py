"""``python -m efsgd_jax.compare`` compares finished runs; from Python, ``efsgd_jax.compare``."""

import sys

from efsgd_jax.runs.programs import make_comparison

if __name__ == "__main__":
    sys.exit(make_comparison())
