"""Ten images of each class of MNIST, from one noisy release of features of random networks.

    python -m efsgd_jax.train --config=configs/distilled_mnist.py --workdir=runs/distilled_mnist

The set of 100 images is what is published. Each of them is a mosaic of four, which ``sample`` draws and enlarges;
``--config.method.tiles_per_side=1`` makes single images. A larger set is made by
``--config.method.images_per_class=50``.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 1.0) -> ConfigDict:
    config = default_config("distilled_set")
    config.data.name = "mnist"
    config.privacy.epsilon = epsilon
    config.method.update(augmentation=0.5)
    # More images to draw; each step compares a quarter of the networks, and there are more steps.
    config.method.update(tiles_per_side=2, networks_per_step=4, matching_steps=600)
    return config
