"""``python -m efsgd_jax.release_score`` publishes one score of a finished run, with noise, at a price in epsilon."""

import sys

from efsgd_jax.programs.release_score import main

if __name__ == "__main__":
    sys.exit(main())
