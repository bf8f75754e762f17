"""Entry point of ``python -m efsgd_jax COMMAND``, which is the same as ``efsgd COMMAND``."""

import sys

from efsgd_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
