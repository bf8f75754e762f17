"""scikit-learn's 8x8 digits (N = 1,422), bundled, epsilon 10, by the method of the paper without the mixture. Half a
minute on 2 CPU cores; gen2real about 0.89 (logistic regression), 0.88 (CNN), but ten images of a class are alike.

    python -m efsgd_jax.train --config=configs/efsgd_digits.py --workdir=runs/efsgd_digits
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    return default_config()
