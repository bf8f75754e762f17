"""PEARL on Fashion-MNIST: a generator matched to one noisy release of random features of the pictures.

    python -m efsgd_jax.train --config=configs/pearl_fmnist.py --workdir=runs/pearl_fmnist

``--config.method.start=mixture`` starts from a private mixture, which gets half of epsilon. Minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 1.0) -> ConfigDict:
    config = default_config("pearl")
    config.data.name = "fashion_mnist"
    config.privacy.epsilon = epsilon
    # For a start from a mixture: the representation of configs/fmnist.py.
    config.method.update(pose_weight=8.0, pose_slant=False, components=1, directions=60, contrast=1.0)
    return config
