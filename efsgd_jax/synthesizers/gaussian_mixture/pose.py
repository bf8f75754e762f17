"""Pose normalisation: the position, size and slant of an image's object are removed before images are averaged.

Averages of images that are not aligned are blurred, and most of their principal components describe shifts and slants.
Each image is therefore transformed to a common position, size and slant (the frame). Its own position, size and slant
(the pose) are measured by the first and second moments of its brightness. The pose is kept as five numbers beside the
image, like shape and shape-free appearance in Cootes, Edwards, Taylor, Active Appearance Models, 1998. To generate an
image, a sampled appearance is transformed to a sampled pose.

Everything here is a function of one image and of public constants.
"""

import jax
import jax.numpy as jnp

# Horizontal and vertical standard deviation of the brightness of an image in the frame, in units of the image's side.
FRAME_WIDTH, FRAME_HEIGHT = 0.17, 0.21
# Bounds of the pose: position x and y (in units of the image's side), log width, log height and slant are clipped.
RANGES = (0.215, 0.215, 1.2, 1.2, 1.2)
POSE_SIZE = len(RANGES)


def find_pose(image: jax.Array, slant: bool) -> jax.Array:
    """The pose ``[5]`` of a float image ``[S, S, C]`` in [0, 1]: position x and y, log width, log height and slant.

    Each number is divided by its bound in ``RANGES``, so that it is in [-1, 1]. A pose of zeros is that of the frame.
    If ``slant`` is False, the last number is 0. A black image has the same pose as a uniformly grey one.
    """
    across, down = places(image.shape[0])
    light = jnp.mean(image, axis=-1) + 1e-6  # not zero for a black image
    light = light / jnp.sum(light)
    x, y = jnp.sum(light * across), jnp.sum(light * down)
    dx, dy = across - x, down - y
    xx, xy, yy = jnp.sum(light * dx * dx), jnp.sum(light * dx * dy), jnp.sum(light * dy * dy)
    narrowest = (0.5 / image.shape[0]) ** 2  # the variance for a standard deviation of half a pixel
    yy = jnp.maximum(yy, narrowest)
    shear = jnp.clip(xy / yy, -1.0, 1.0) if slant else jnp.zeros(())
    width = 0.5 * jnp.log(jnp.maximum(xx - shear**2 * yy, narrowest) / FRAME_WIDTH**2)
    height = 0.5 * jnp.log(yy / FRAME_HEIGHT**2)
    return jnp.clip(jnp.stack([x, y, width, height, shear]) / jnp.array(RANGES), -1.0, 1.0)


def to_frame(image: jax.Array, pose: jax.Array) -> jax.Array:
    """Transforms an image ``[S, S, C]`` with the given pose to the frame. Positions outside of the image read as 0."""
    x, y, width, height, shear = pose * jnp.array(RANGES)
    across, down = places(image.shape[0])
    v = jnp.exp(height) * down
    return look_up(image, x + jnp.exp(width) * across + shear * v, y + v)


def from_frame(image: jax.Array, pose: jax.Array) -> jax.Array:
    """Transforms an image in the frame to the given pose.

    The inverse of ``to_frame``, except for parts that lie outside of the frame and for the blur of interpolation.
    """
    x, y, width, height, shear = pose * jnp.array(RANGES)
    across, down = places(image.shape[0])
    v = down - y
    return look_up(image, (across - x - shear * v) * jnp.exp(-width), v * jnp.exp(-height))


def look_up(image: jax.Array, across: jax.Array, down: jax.Array) -> jax.Array:
    """Resamples an image ``[S, S, C]`` by bilinear interpolation.

    ``across`` and ``down``, each ``[S, S]``, give the position to read for every output pixel, as an offset from the
    image's centre in units of the image's side. Positions outside of the image read as 0.
    """
    side = image.shape[0]
    rows_and_columns = [side * down + (side - 1) / 2, side * across + (side - 1) / 2]
    read = jax.vmap(
        lambda plane: jax.scipy.ndimage.map_coordinates(plane, rows_and_columns, order=1), in_axes=-1, out_axes=-1
    )
    return read(image)


def places(side: int) -> tuple[jax.Array, jax.Array]:
    """The positions of an image's pixels, across and down, each ``[S, S]``.

    Positions are offsets from the image's centre in units of the image's side. ``side`` is S.
    """
    line = (jnp.arange(side) - (side - 1) / 2) / side
    down, across = jnp.meshgrid(line, line, indexing="ij")
    return across, down
