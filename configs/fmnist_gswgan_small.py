from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("sanitized_gan")
    config.data.name = "fashion_mnist"
    config.privacy.update(schedule="published", num_shards=100, noise_multiplier=1.07, allow_unproven=True)
    config.train.update(steps=1500, images_per_step=32, log_every=50, grid_every=250)
    config.method.update(
        generator_width=8,
        max_width=32,
        critic_width=16,
        critic_batch_size=16,
        critic_steps=3,
        generator_learning_rate=1e-3,
        critic_learning_rate=1e-3,
        warm_steps=20,
        ema_decay=0.99,
    )
    return config
