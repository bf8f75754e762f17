"""Mosaics: a published image may be T x T small ones, so that a set of the same size has T^2 times as many images."""

import jax

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError


def check_tiles(spec: ImageSpec, tiles_per_side: int) -> None:
    """Refuses images that cannot be divided.

    Raises:
      UserError: the images' side is not a multiple of ``tiles_per_side``, or a tile would have less than 4 pixels.
    """
    side = spec.image_size
    if tiles_per_side > 1 and (side % tiles_per_side or side // tiles_per_side < 4):
        raise UserError(
            f"config.method.tiles_per_side is {tiles_per_side}, but images have {side} pixels a side, which must be a "
            "multiple of it, with tiles of at least 4 pixels; set --config.method.tiles_per_side=1"
        )


def drawn_images(images: jax.Array, tiles_per_side: int) -> jax.Array:
    """The images that are drawn from published ones: their tiles, enlarged by linear interpolation.

    Args:
      images: float ``[K, n, S, S, C]``.
      tiles_per_side: T, a divisor of S; with 1 the images stay as they are.

    Returns:
      float ``[K, n T^2, S, S, C]``, the tiles of an image from left to right and from top to bottom.

    Examples:
      >>> import jax.numpy as jnp
      >>> mosaic = jnp.kron(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.ones((2, 2)))  # four tiles, each of one brightness
      >>> drawn_images(mosaic.reshape(1, 1, 4, 4, 1), 2).mean(axis=(2, 3, 4)).tolist()
      [[1.0, 2.0, 3.0, 4.0]]
    """
    if tiles_per_side == 1:
        return images
    classes, count, side, _, channels = images.shape
    small = side // tiles_per_side
    tiles = images.reshape(classes, count, tiles_per_side, small, tiles_per_side, small, channels)
    tiles = tiles.swapaxes(3, 4).reshape(classes, count * tiles_per_side**2, small, small, channels)
    return jax.image.resize(tiles, (*tiles.shape[:2], side, side, channels), "linear")
