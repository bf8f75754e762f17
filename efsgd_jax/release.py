"""``python -m efsgd_jax.release`` packs what a run may publish, or refuses."""

import sys

from efsgd_jax.runs.programs import publish

if __name__ == "__main__":
    sys.exit(publish())
