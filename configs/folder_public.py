"""Your own pictures in colour, with public pictures for a warm start: 32x32 pixels, epsilon 10.

    efsgd pretrain --config=preset:folder_public --config.public.path=PUBLIC.zip --out=public.msgpack
    efsgd train --config=preset:folder_public --config.public.weights=public.msgpack \\
        --config.data.path=PICTURES.zip --workdir=runs/folder_public

An autoencoder learns from the public pictures, which are not protected; a private mixture of its codes then learns from
your own. One pre-training, a quarter of an hour on 2 CPU cores, serves any number of private runs, a minute each.
``--config.method.align_lines=True`` is for pictures without up and down, such as those from above.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("gaussian_mixture")
    config.data.update(name="folder", image_size=32, channels=3)
    config.method.update(
        autoencoder_width=64,
        directions=120,
        components=8,
        candidates=1,
    )
    return config
