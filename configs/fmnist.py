"""Fashion-MNIST, by default at epsilon 10, delta 1e-5: a private mixture, and a network on its latent space that is
trained by DP-SGD. A quarter of an hour on 2 CPU cores, less at epsilon 1: docs/results/efsgd_mixture.md.

    python -m efsgd_jax.train --config=configs/fmnist.py --workdir=runs/fmnist
    python -m efsgd_jax.train --config=configs/fmnist.py --workdir=runs/fmnist_1 --config.privacy.epsilon=1

downloads the data once; ``--config.data.path=fashion_mnist.npz`` (Keras' keys) or a directory of idx files uses yours.
configs/mixture_fmnist.py is the mixture alone, in less than a minute.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 10.0) -> ConfigDict:
    config = default_config("efsgd_mixture")
    config.data.name = "fashion_mnist"
    config.privacy.epsilon = epsilon
    # One number for each image, without any cost in epsilon; docs/results/feedback.md.
    config.privacy.update(feedback="local", feedback_l2_norm_clip=0.3)
    config.method.update(pose_weight=8.0, pose_slant=False, directions=120, mean_clip=14.0, deviation_clip=6.0)
    # The mixture spends most of epsilon: the noise of many steps of DP-SGD grows little with what the mixture spends.
    # Batches are large: the noise multiplier grows more slowly than the batch.
    if epsilon < 2:  # noise leaves one component of each class in sight, and none of the finest structure
        config.train.update(steps=150, expected_batch_size=2048)
        config.method.update(mixture_share=0.75, components=1, low_pass=16, contrast=1.8)
        # In directions of generated images the classifier is worth more of the budget, and needs few, small steps.
        config.method.update(reranker="whitened", acceptance="most_likely", reranker_share=0.2)
        config.method.update(reranker_steps=60, reranker_learning_rate=2.0)
    else:
        config.train.update(steps=300, expected_batch_size=2048)
        config.method.update(mixture_share=0.8, components=20, contrast=1.35, reranker_share=0.06)
        config.method.edge_weight = 1.0  # the edges and the texture that an average lacks
        # With little noise, more steps make the reranker more accurate.
        config.method.update(reranker_steps=120, reranker_learning_rate=15.0)
    config.train.update(log_every=10, grid_every=100)
    return config
