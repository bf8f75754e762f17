"""Your own pictures in colour: a directory or a .zip of class folders, cropped to 32x32, epsilon 10. About 7 minutes
per 1,000 steps on 2 CPU cores.

    python -m efsgd_jax.train --config=configs/folder.py --config.data.path=PICTURES.zip --workdir=runs/folder

``--config.data.channels=1`` reads grey pictures as grey.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.update(name="folder", image_size=32, channels=3)
    config.train.update(steps=4000, expected_batch_size=128, log_every=50, grid_every=500)
    config.method.update(
        latent=32, max_width=32, features=64, kl_weight=3.0, learning_rate=4e-3, generator_learning_rate=3e-4
    )
    return config
