"""PATE-TripleGAN on Fashion-MNIST: the labels of about 2,000 of the 60,000 images are read.

    python -m efsgd_jax.train --config=configs/pate_fmnist.py --workdir=runs/pate_fmnist

A private classifier labels the other images for a mixture, and discriminators on 50 shards score the generator.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 10.0) -> ConfigDict:
    config = default_config("pate_triple_gan")
    config.data.name = "fashion_mnist"
    config.privacy.epsilon = epsilon
    few = epsilon < 2  # noise leaves one component of each class in sight, and none of the finest structure
    config.method.update(
        pose_weight=8.0,
        pose_slant=False,
        components=1 if few else 5,
        low_pass=16 if few else 0,
        mean_clip=14.0,
        deviation_clip=6.0,
        contrast=1.8 if few else 1.35,
    )
    return config
