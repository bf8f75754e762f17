"""Your own pictures of cells, or of other round objects on a dark background that differ by a spot: 32x32 pixels in
colour, epsilon 10. A minute on 2 CPU cores.

    efsgd train --config=preset:folder_cells --config.data.path=PICTURES.zip --workdir=runs/cells

Each picture is turned and bent so that its darkest spot, say a parasite, is at one place, before a private mixture
learns from it. No public pictures are needed.
"""

from ml_collections import ConfigDict

from efsgd_jax import default_config


def get_config() -> ConfigDict:
    config = default_config("gaussian_mixture")
    config.data.update(name="folder", image_size=32, channels=3)
    config.method.update(
        align_spot=True,
        # 1,201 numbers an image; most pictures of cells have a norm near 24.
        low_pass=20,
        mean_clip=24.0,
        deviation_clip=8.0,
        directions=200,
        components=8,
        candidates=1,
    )
    return config
