"""scikit-learn's 8x8 digits (N = 1,422), bundled, epsilon 10: the demo. Half a minute on 2 CPU cores;
gen2real about 0.89 (logistic regression), 0.88 (CNN).

python -m efsgd_jax.train --config=configs/digits.py --workdir=runs/digits
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    return default_config()
