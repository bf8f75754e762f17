"""The small sibling of configs/sanitized_fmnist.py for 2 CPU cores: K = 100 narrow discriminators, 1,200 steps,
epsilon 10 (delta 1e-5), proven. About 2 minutes; gen2real in docs/results/images.md.

    python -m efsgd_jax.train --config=configs/sanitized_fmnist_small.py --workdir=runs/family

Switches, of which each can be added alone (GS-WGAN without any, DP-GAN-DPAC the first, EFSGD all):

    --config.method.classifier_weight=0.2
    --config.privacy.feedback=private --config.privacy.feedback_l2_norm_clip=2
    --config.method.noise_injection=true
    --config.method.reconstruction_weight=0.02

As published, at the papers' noise and without a guarantee, with ``feedback=hidden`` and ``reconstruction_from=codes``:

    --config.privacy.schedule=published --config.privacy.allow_unproven=true --config.privacy.noise_multiplier=1.07
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("sanitized_gan")
    config.data.name = "fashion_mnist"
    config.privacy.num_shards = 100
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
