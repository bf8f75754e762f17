"""Fashion-MNIST at epsilon 10, delta 1e-5: a private mixture, then a diffusion of what its images lack, by DP-SGD.
40 to 80 minutes on 2 CPU cores; its images are grainy, those of configs/fmnist.py are better.

    python -m efsgd_jax.train --config=configs/diffusion_fmnist.py --workdir=runs/diffusion_fmnist

downloads the data once; ``--config.data.path=fashion_mnist.npz`` (Keras' keys) or a directory of idx files uses yours.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("private_diffusion")
    config.data.name = "fashion_mnist"
    # One number for each image, without any cost in epsilon; docs/results/feedback.md.
    config.privacy.update(feedback="local", feedback_l2_norm_clip=0.3)
    # Large batches: the noise multiplier grows more slowly than the batch.
    config.train.update(steps=500, expected_batch_size=4096, log_every=10, grid_every=100)
    config.method.update(
        # Most of epsilon: the noise of many steps of DP-SGD grows little with what the mixture spends.
        mixture_share=0.6,
        pose_weight=8.0,
        pose_slant=False,
        components=20,
        directions=120,
        mean_clip=14.0,
        deviation_clip=6.0,
        contrast=1.35,
        reranker_share=0.06,
        reranker_steps=120,
        reranker_learning_rate=15.0,
    )
    return config
