"""P3GM on Fashion-MNIST: a private mixture as prior, and a variational decoder that is trained by DP-SGD.

    python -m efsgd_jax.train --config=configs/p3gm_fmnist.py --workdir=runs/p3gm_fmnist

As configs/fmnist.py, with a posterior in the place of one code for each image.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 1.0) -> ConfigDict:
    config = default_config("p3gm")
    config.data.name = "fashion_mnist"
    config.privacy.epsilon = epsilon
    config.privacy.update(feedback="local", feedback_l2_norm_clip=0.3)
    config.method.update(pose_weight=8.0, pose_slant=False, directions=120, mean_clip=14.0, deviation_clip=6.0)
    if epsilon < 2:
        config.train.update(steps=150, expected_batch_size=2048)
        config.method.update(mixture_share=0.75, components=1, low_pass=16, contrast=1.8, reranker_share=0.12)
    else:
        config.train.update(steps=250, expected_batch_size=2048)
        config.method.update(mixture_share=0.6, components=20, contrast=1.35, reranker_share=0.06)
    return config
