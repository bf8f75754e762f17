"""``python -m efsgd_jax.report`` makes a page of a finished run; from Python, ``efsgd_jax.report``."""

import sys

from efsgd_jax.runs.programs import make_report

if __name__ == "__main__":
    sys.exit(make_report())
