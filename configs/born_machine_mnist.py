"""A Born machine (matrix product state) on MNIST in black and white, resized to 14x14 pixels.

    python -m efsgd_jax.train --config=configs/born_machine_mnist.py --workdir=runs/born_mnist

Likelihood and sampling are exact. The time of a step grows with the number of pixels: 28x28 take four times as long.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 10.0) -> ConfigDict:
    config = default_config("born_machine")
    config.data.update(name="mnist", image_size=14)
    config.privacy.epsilon = epsilon
    config.train.steps = 300
    return config
