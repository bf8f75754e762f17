"""Ten images of each class of Fashion-MNIST, from one noisy release of features of random networks.

    python -m efsgd_jax.train --config=configs/distilled_fmnist.py --workdir=runs/distilled_fmnist

The set of 100 images is what is published. Each of them is a mosaic of four, which ``sample`` draws and enlarges;
``--config.method.tiles_per_side=1`` makes single images. A larger set is made by
``--config.method.images_per_class=50``.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 1.0) -> ConfigDict:
    config = default_config("distilled_set")
    config.data.name = "fashion_mnist"
    config.privacy.epsilon = epsilon
    config.method.augmentation = 0.2  # clothes are nearly upright; digits are not
    # Four times as many images to draw, and many steps, each of which compares an eighth of the networks.
    config.method.update(tiles_per_side=2, networks_per_step=2, matching_steps=2000)
    return config
