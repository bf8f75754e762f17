"""The small sibling of configs/sanitized_celeba.py for 2 CPU cores: K = 100 narrow discriminators, 1,200 steps,
epsilon 10 (delta 1e-6), proven.

    python -m efsgd_jax.train --config=configs/sanitized_celeba_small.py --config.data.path=CELEBA --workdir=runs/faces

Switches are those of configs/sanitized_fmnist_small.py.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("sanitized_gan")
    config.data.update(name="celeba", image_size=32, attribute="Male")
    config.privacy.update(num_shards=100, delta=1e-6)
    config.train.update(steps=1200, log_every=50, grid_every=400)
    config.method.update(
        generator_width=8,
        max_width=32,
        generator_learning_rate=1e-3,
        ema_decay=0.99,
        critic_width=16,
        critic_steps=3,
        critic_batch_size=16,
        critic_learning_rate=1e-3,
        warm_steps=20,
        classifier_from=300,
        reconstruction_from="prior",
        candidates=8,
    )
    return config
