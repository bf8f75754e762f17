"""``python -m efsgd_jax.export`` writes a generator as StableHLO and safetensors; from Python,
``efsgd_jax.runs.export.export``."""

import sys

from efsgd_jax.programs.export import main

if __name__ == "__main__":
    sys.exit(main())
