"""Pictures of which only the middle is private: the central 8x8 pixels of blood cells (or of your own class folders) at
16x16 in grey, epsilon 1 for that region. Three minutes on 2 CPU cores.

    efsgd train --config=preset:region_malaria --config.data.path=malaria.zip --workdir=runs/region

The outer pixels, the labels and who is in the data are public here: there is no guarantee for a picture or a person
(docs/privacy/regions.md). A Born machine in four levels of grey learns from both.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config(epsilon: float = 1.0) -> ConfigDict:
    config = default_config("born_machine")
    config.data.update(name="folder", image_size=16, channels=1)
    # The public gradient is not clipped: a smaller norm would leave the region to the interpolation.
    config.privacy.update(epsilon=epsilon, region="4,4,8,8", l2_norm_clip=30.0)
    config.train.update(steps=200, expected_batch_size=256)
    config.method.update(levels=4, bond=4)
    return config
