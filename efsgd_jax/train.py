"""``python -m efsgd_jax.train`` trains a generator; from Python, ``efsgd_jax.fit``."""

import sys

from efsgd_jax.runs.programs import train

if __name__ == "__main__":
    sys.exit(train())
