"""scikit-learn's 8x8 digits (N = 1,422), bundled, epsilon 10: the demo. Half a minute on 2 CPU cores; gen2real about
0.92 (logistic regression and CNN), recall about 0.4.

    python -m efsgd_jax.train --config=configs/digits.py --workdir=runs/digits
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("efsgd_mixture")
    # One number for each image, without any cost in epsilon; docs/results/feedback.md.
    config.privacy.update(feedback="local", feedback_l2_norm_clip=0.3)
    config.train.update(steps=60, expected_batch_size=256)
    config.method.update(
        mixture_share=0.6,
        components=1,  # 142 images of a class are too few for more
        directions=20,
        mean_clip=5.0,
        deviation_clip=3.0,
        contrast=1.15,
        width=16,
        blocks=2,
    )
    return config
