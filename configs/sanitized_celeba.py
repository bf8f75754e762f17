"""GS-WGAN and DP-GAN-DPAC on CelebA's gender at 32x32 with the papers' settings: K = 2543, sigma = 0.61135. For a
GPU: 31 GiB of memory, which is said before anything is allocated.

    python -m efsgd_jax.train --config=configs/sanitized_celeba.py --config.data.path=CELEBA --workdir=runs/faces

Schedules and switches are those of configs/sanitized_fmnist.py.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("sanitized_gan")
    config.data.update(name="celeba", image_size=32, attribute="Male")
    config.privacy.update(noise_multiplier=0.61135, num_shards=2543, delta=1e-6)
    config.train.update(log_every=100, grid_every=2000)
    config.method.update(critic_steps=10, classifier_from=1000, warm_steps=200, reconstruction_from="prior")
    return config
