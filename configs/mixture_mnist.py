"""MNIST by a private mixture of Gaussians and a private teacher: no network, about 10 seconds on 2 CPU cores.

    python -m efsgd_jax.train --config=configs/mixture_mnist.py --workdir=runs/mixture_mnist

epsilon 10. Small ones afford one component of each class: ``--config.privacy.epsilon=1 --config.method.components=1
--config.method.moment_clip=1``.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("private_mixture")
    config.data.name = "mnist"
    config.method.update(components=10)
    return config
