"""Ten images of each class of MNIST, from one noisy release of features of random networks.

    python -m efsgd_jax.train --config=configs/distilled_mnist.py --workdir=runs/distilled_mnist

The set of 100 images is what is published, and ``sample`` draws from it. A larger set is made by
``--config.method.images_per_class=50``.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 1.0) -> ConfigDict:
    config = default_config("distilled_set")
    config.data.name = "mnist"
    config.privacy.epsilon = epsilon
    config.method.update(augmentation=0.5)
    # Many steps, each of which compares a quarter of the networks.
    config.method.update(networks_per_step=4, matching_steps=1200)
    return config
