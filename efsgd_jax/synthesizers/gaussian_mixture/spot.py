"""Spot normalisation: images of a round object are turned and bent so that its darkest spot is at one place.

Averages of images whose spots are at different places have no spot. Each image is therefore turned about its centre
until its darkest spot, say the parasite in a blood cell, is on the right, and bent around the spot until it is
``RADIUS`` away from the centre. The spot's own distance is kept beside the image. Its direction is not: a generated
image is turned by a random angle, since that of a cell under a microscope says nothing.

Everything here is a function of one image and of public constants.
"""

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.synthesizers.gaussian_mixture.pose import look_up, places

# The distance of spots from the centre of a normalised image. All lengths are in units of the image's side.
RADIUS = 0.22
# Spots that are further away than this from the centre are not looked for.
FARTHEST = 0.46
# Standard deviation of the bell-shaped region around a spot that is moved with it.
MOVED = 0.16
# About half the side of the window over which the darkness of a spot is added up.
SPOT_SIZE = 0.07
# Pixels as dark as this belong to the background.
BACKGROUND = 0.15
# Largest norm of the distance beside the pixels, relative to that of the image (of one channel).
DISTANCE_WEIGHT = 0.1


def find_spot(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the darkest spot of an image, uint8 ``[S, S, C]``, is: its distance from the centre, and the angle.

    The distance is at most ``FARTHEST``, the angle is in radians, from the right over the bottom. The spot is the pixel
    around which most darkness lies: pixels count by the square of how much darker they are than the object's mean, less
    half the mean absolute deviation. Without any, it is the centre.

    Formal guarantees:
      All of it is integer arithmetic and a table of constants. A choice that rounding could turn over would depend on
      which other records are computed beside this one.

    Examples:
      >>> x = jnp.full((16, 16, 1), 255, jnp.uint8).at[2:4, 7:9].set(120)  # a dark square at the top
      >>> distance, angle = find_spot(x)
      >>> round(float(distance), 2), round(float(angle), 2)
      (0.35, -1.66)
    """
    side, channels = image.shape[0], image.shape[2]
    line = (np.arange(side) - (side - 1) / 2) / side
    down, across = np.meshgrid(line, line, indexing="ij")
    near = np.hypot(across, down) < FARTHEST
    grey = jnp.sum(image.astype(jnp.int32), axis=-1)
    inside = (grey > round(255 * BACKGROUND * channels)) & near
    count = jnp.maximum(jnp.sum(inside), 1)
    mean = jnp.sum(grey * inside) // count
    deviation = jnp.sum(jnp.abs(grey - mean) * inside) // count
    # Not the rim, where the object's edge mixes with the background.
    within = jax.lax.reduce_window(inside.astype(jnp.int32), 1, jax.lax.min, (3, 3), (1, 1), "SAME")
    dark = within * jnp.square(jnp.maximum(mean - grey - deviation // 2, 0))
    window = 2 * min(max(1, int(SPOT_SIZE * side)), 29) + 1  # sums of a larger one could leave 32 bits
    darkness = jax.lax.reduce_window(dark, 0, jax.lax.add, (window, window), (1, 1), "SAME") * near
    place = jnp.argmax(darkness)
    there = jnp.max(darkness) > 0
    distances = jnp.asarray(np.hypot(across, down).ravel(), jnp.float32)
    angles = jnp.asarray(np.arctan2(down, across).ravel(), jnp.float32)
    return jnp.where(there, distances[place], 0.0), jnp.where(there, angles[place], 0.0)


def to_place(image: jax.Array, distance: jax.Array, angle: jax.Array) -> jax.Array:
    """Turns an image ``[S, S, C]`` by the angle of its spot and bends it so that the spot is at ``RADIUS``."""
    return _bend(_turn(image, angle), distance, RADIUS)


def from_place(image: jax.Array, distance: jax.Array, angle: jax.Array) -> jax.Array:
    """About the inverse of ``to_place``: moves the spot to a distance from the centre, and turns the image."""
    return _turn(_bend(image, RADIUS, distance), -angle)


def _turn(image: jax.Array, angle: jax.Array) -> jax.Array:
    """What was in the direction ``angle`` is then on the right."""
    across, down = places(image.shape[0])
    c, s = jnp.cos(angle), jnp.sin(angle)
    return look_up(image, c * across - s * down, s * across + c * down)


def _bend(image: jax.Array, old: jax.Array | float, new: jax.Array | float) -> jax.Array:
    """What was ``old`` to the right of the centre is then at ``new``; the edge of the image hardly moves."""
    across, down = places(image.shape[0])
    bell = jnp.exp(-(jnp.square(across - new) + jnp.square(down)) / (2 * MOVED**2))
    return look_up(image, across + (old - new) * bell, down)
