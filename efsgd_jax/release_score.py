"""``python -m efsgd_jax.release_score`` publishes one score of a finished run, with noise, at a price in epsilon."""

import sys

from efsgd_jax.runs.programs import publish_score

if __name__ == "__main__":
    sys.exit(publish_score())
