"""Fashion-MNIST by a private mixture of Gaussians and a private teacher: no network, about 10 seconds on 2 CPU cores.

    python -m efsgd_jax.train --config=configs/mixture_fmnist.py --workdir=runs/mixture_fmnist

epsilon 10. Small ones afford one component of each class: ``--config.privacy.epsilon=1 --config.method.components=1
--config.method.teacher_share=0.3``.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("private_mixture")
    config.data.name = "fashion_mnist"
    config.method.update(
        components=10, directions=80, mean_clip=14.0, deviation_clip=9.0, candidates=8, teacher_share=0.05
    )
    return config
