"""A Born machine (matrix product state) on 8x8 digits in black and white, with exact likelihood and exact sampling.

    python -m efsgd_jax.train --config=configs/born_machine_digits.py --workdir=runs/born

One chain of matrices for each class. ``--config.method.levels=4`` has four levels of grey. A minute on 2 CPU cores.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 10.0) -> ConfigDict:
    config = default_config("born_machine")
    config.privacy.epsilon = epsilon
    return config
