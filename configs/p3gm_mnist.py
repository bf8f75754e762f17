"""P3GM on MNIST: a private mixture as prior, and a variational decoder that is trained by DP-SGD.

    python -m efsgd_jax.train --config=configs/p3gm_mnist.py --workdir=runs/p3gm_mnist

As configs/mnist.py, with a posterior in the place of one code for each image.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 1.0) -> ConfigDict:
    config = default_config("p3gm")
    config.data.name = "mnist"
    config.privacy.epsilon = epsilon
    config.privacy.update(feedback="local", feedback_l2_norm_clip=0.3)
    config.method.update(pose_weight=8.0, directions=120, candidates=1)
    if epsilon < 2:
        config.train.update(steps=150, expected_batch_size=2048)
        config.method.update(mixture_share=0.75, components=1, deformation=0.75 / 28, contrast=2.0)
    else:
        config.train.update(steps=250, expected_batch_size=2048)
        config.method.update(mixture_share=0.6, components=8, deformation=0.5 / 28, contrast=1.5)
    return config
