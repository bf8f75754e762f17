"""The paper's method on Fashion-MNIST at epsilon 10, delta 1e-5. About 7 minutes on 2 CPU cores; gen2real about 0.76
(logistic regression), 0.71 (CNN).

    python -m efsgd_jax.train --config=configs/efsgd_fmnist.py --workdir=runs/efsgd_fmnist

downloads the data once; ``--config.data.path=fashion_mnist.npz`` (Keras' keys) or a directory of idx files uses yours.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.data.name = "fashion_mnist"
    config.train.update(steps=2400, expected_batch_size=256, log_every=50, grid_every=400)
    config.method.update(
        latent=16,
        max_width=32,
        features=64,
        kl_weight=4.0,
        learning_rate=4e-3,
        generator_learning_rate=3e-4,
        generated_batch_size=32,
    )
    return config
