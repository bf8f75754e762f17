"""MNIST at epsilon 10, delta 1e-5: a private mixture as latent space, then DP-SGD, a few
minutes less than for Fashion-MNIST; not scored on the test split yet.

    python -m efsgd_jax.train --config=configs/efsgd_mixture_mnist.py --workdir=runs/efsgd_mixture_mnist

downloads the data once; ``--config.data.path=mnist.npz`` (Keras' keys) or a directory of idx files uses yours.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("efsgd_mixture")
    config.data.name = "mnist"
    # Large batches: the noise multiplier grows more slowly than the batch.
    config.train.update(steps=250, expected_batch_size=2048, log_every=10, grid_every=100)
    config.method.update(
        # Most of epsilon: the noise of many steps of DP-SGD grows little with what the mixture spends.
        mixture_share=0.6,
        pose_weight=8.0,
        components=8,
        directions=120,
        deformation=0.25 / 28,
        contrast=2.0,
    )
    return config
