"""``python -m efsgd_jax.release`` packs what a run may publish, or refuses."""

import sys

from efsgd_jax.programs.release import main

if __name__ == "__main__":
    sys.exit(main())
