"""Your own pictures in colour: a directory or a .zip of class folders, cropped to 32x32, epsilon 10. Less than a minute
on 2 CPU cores for 50,000 pictures.

    efsgd train --config=preset:folder --config.data.path=PICTURES.zip --workdir=runs/folder

``--config.data.channels=1`` reads grey pictures as grey, ``--config.data.image_size=64`` makes larger ones; clip norms
follow. A private mixture learns the low frequencies of the pictures (scores in docs/results/public.md). With public
pictures, ``folder_public`` is better. For single round objects that differ by a spot, take ``folder_cells``. Bright
pictures may come out darker: a larger ``--config.method.mean_clip``, such as 30, keeps their brightness, but adds
noise.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("gaussian_mixture")
    config.data.update(name="folder", image_size=32, channels=3)
    config.method.update(low_pass=12, components=4, directions=120, candidates=1)
    return config
