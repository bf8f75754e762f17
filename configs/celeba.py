"""CelebA at 32x32, labelled by one attribute, epsilon 10 (delta 1e-6: N = 162,770). For a GPU: about 15 minutes per
1,000 steps on 2 CPU cores.

The directory has CelebA's own layout: img_align_celeba/, list_attr_celeba.txt, list_eval_partition.txt.

    python -m efsgd_jax.train --config=configs/celeba.py --config.data.path=CELEBA --workdir=runs/celeba

``--config.data.attribute=Smiling`` labels by another attribute, ``--config.data.image_size=64`` doubles the side.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.update(name="celeba", image_size=32, attribute="Male")
    config.privacy.delta = 1e-6
    config.train.update(steps=8000, expected_batch_size=256, log_every=50, grid_every=500)
    config.method.update(
        latent=32, max_width=64, features=64, kl_weight=3.0, learning_rate=4e-3, generator_learning_rate=3e-4
    )
    return config
