"""PATE-TripleGAN on MNIST: the labels of about 2,000 of the 60,000 images are read.

    python -m efsgd_jax.train --config=configs/pate_mnist.py --workdir=runs/pate_mnist

A private classifier labels the other images for a mixture, and discriminators on 50 shards score the generator.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 10.0) -> ConfigDict:
    config = default_config("pate_triple_gan")
    config.data.name = "mnist"
    config.privacy.epsilon = epsilon
    few = epsilon < 2  # noise leaves one component of each class in sight
    config.method.update(pose_weight=8.0, components=1 if few else 5, deformation=0.5 / 28, contrast=2.0)
    return config
