"""MNIST, by default at epsilon 10, delta 1e-5: a private mixture, and a network on its latent space that is trained by
DP-SGD. About eight minutes on 2 CPU cores; scores in docs/results/efsgd_mixture.md.

    python -m efsgd_jax.train --config=configs/mnist.py --workdir=runs/mnist
    python -m efsgd_jax.train --config=configs/mnist.py --workdir=runs/mnist_1 --config.privacy.epsilon=1

downloads the data once; ``--config.data.path=mnist.npz`` (Keras' keys) or a directory of idx files uses yours.
configs/mixture_mnist.py is the mixture alone, in a quarter of a minute.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 10.0) -> ConfigDict:
    config = default_config("efsgd_mixture")
    config.data.name = "mnist"
    config.privacy.epsilon = epsilon
    # One number for each image, without any cost in epsilon; docs/results/feedback.md.
    config.privacy.update(feedback="local", feedback_l2_norm_clip=0.3)
    # Without a re-ranking classifier, which raises no score here.
    config.method.update(pose_weight=8.0, directions=120, candidates=1)
    # The mixture spends most of epsilon: the noise of many steps of DP-SGD grows little with what the mixture spends.
    # Batches are large: the noise multiplier grows more slowly than the batch.
    if epsilon < 2:  # noise leaves one component of each class in sight, and little of what differs within it
        config.train.update(steps=150, expected_batch_size=2048)
        config.method.update(mixture_share=0.75, components=1, deformation=0.75 / 28, contrast=2.0)
    else:
        config.train.update(steps=250, expected_batch_size=2048)
        config.method.update(mixture_share=0.6, components=8, deformation=0.5 / 28, contrast=1.5)
    config.train.update(log_every=10, grid_every=100)
    return config
