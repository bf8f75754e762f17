"""Where an image shows its object, how large and how slanted: taken out before the images are averaged.

Averages over images that are not aligned are blurred, and principal components of them spend themselves on shifts and
slants. Each image is therefore brought to one position, size and slant, those of its brightness' first and second
moments, and its pose is kept as five numbers beside it (the shape and the shape-free appearance of Cootes, Edwards,
Taylor, Active Appearance Models, 1998). Drawing puts a drawn appearance into a drawn pose.

Everything here is a function of one image and of public constants.
"""

import jax
import jax.numpy as jnp

# Root mean square distance of the brightness from its centre, in sides of the image: those of an image in the frame.
FRAME_WIDTH, FRAME_HEIGHT = 0.17, 0.21
# The largest position (in sides), log width, log height and slant there are; what is further is taken to be there.
RANGES = (0.215, 0.215, 1.2, 1.2, 1.2)
POSE_SIZE = len(RANGES)


def find_pose(image: jax.Array, slant: bool) -> jax.Array:
    """Position x, y, width, height and slant of a float image ``[S, S, C]`` in [0, 1]: ``[5]``, each in [-1, 1].

    Zeros are the frame's own pose. Without ``slant`` the last is 0. An image without light has the pose of one that is
    evenly grey.
    """
    across, down = places(image.shape[0])
    light = jnp.mean(image, axis=-1) + 1e-6
    light = light / jnp.sum(light)
    x, y = jnp.sum(light * across), jnp.sum(light * down)
    dx, dy = across - x, down - y
    xx, xy, yy = jnp.sum(light * dx * dx), jnp.sum(light * dx * dy), jnp.sum(light * dy * dy)
    narrowest = (0.5 / image.shape[0]) ** 2
    yy = jnp.maximum(yy, narrowest)
    shear = jnp.clip(xy / yy, -1.0, 1.0) if slant else jnp.zeros(())
    width = 0.5 * jnp.log(jnp.maximum(xx - shear**2 * yy, narrowest) / FRAME_WIDTH**2)
    height = 0.5 * jnp.log(yy / FRAME_HEIGHT**2)
    return jnp.clip(jnp.stack([x, y, width, height, shear]) / jnp.array(RANGES), -1.0, 1.0)


def to_frame(image: jax.Array, pose: jax.Array) -> jax.Array:
    """The image ``[S, S, C]``, whose pose is given, as it looks in the frame; dark outside of the image."""
    x, y, width, height, shear = pose * jnp.array(RANGES)
    across, down = places(image.shape[0])
    v = jnp.exp(height) * down
    return look_up(image, x + jnp.exp(width) * across + shear * v, y + v)


def from_frame(image: jax.Array, pose: jax.Array) -> jax.Array:
    """The inverse of ``to_frame``, but for what lies outside of the frame and what interpolation blurs."""
    x, y, width, height, shear = pose * jnp.array(RANGES)
    across, down = places(image.shape[0])
    v = down - y
    return look_up(image, (across - x - shear * v) * jnp.exp(-width), v * jnp.exp(-height))


def look_up(image: jax.Array, across: jax.Array, down: jax.Array) -> jax.Array:
    """An image ``[S, S, C]`` read between its pixels, at places ``[S, S]`` in sides from the centre; dark outside."""
    side = image.shape[0]
    rows_and_columns = [side * down + (side - 1) / 2, side * across + (side - 1) / 2]
    read = jax.vmap(
        lambda plane: jax.scipy.ndimage.map_coordinates(plane, rows_and_columns, order=1), in_axes=-1, out_axes=-1
    )
    return read(image)


def places(side: int) -> tuple[jax.Array, jax.Array]:
    """The pixels' places, in sides from the centre: across and down, ``[S, S]``."""
    line = (jnp.arange(side) - (side - 1) / 2) / side
    down, across = jnp.meshgrid(line, line, indexing="ij")
    return across, down
