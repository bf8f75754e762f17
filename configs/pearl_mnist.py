"""PEARL on MNIST: a generator matched to one noisy release of random features of the digits.

    python -m efsgd_jax.train --config=configs/pearl_mnist.py --workdir=runs/pearl_mnist

``--config.method.start=mixture`` starts from a private mixture, which gets half of epsilon, and
``--config.method.critic_every=0`` weights all frequencies equally (DP-MERF). Minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 1.0) -> ConfigDict:
    config = default_config("pearl")
    config.data.name = "mnist"
    config.privacy.epsilon = epsilon
    # For a start from a mixture: the representation of configs/mnist.py.
    config.method.update(pose_weight=8.0, pose_slant=True, components=1, directions=60, contrast=1.0)
    return config
