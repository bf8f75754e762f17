"""Spot normalisation: images of a round object are turned and bent so that its darkest spot is at one place.

Averages of images whose spots are at different places have no spot. Each image is therefore turned about its centre
until its darkest spot, say the parasite in a blood cell, is on the right, and bent around the spot until it is
``RADIUS`` away from the centre. The spot's own distance is kept beside the image. Its direction is not: a generated
image is turned by a random angle, since that of a cell under a microscope says nothing.

Everything here is a function of one image and of public constants.
"""

import jax
import jax.numpy as jnp

from efsgd_jax.synthesizers.gaussian_mixture.pose import look_up, places

# The distance of spots from the centre of a normalised image. All lengths are in units of the image's side.
RADIUS = 0.22
# Spots that are further away than this from the centre are not looked for.
FARTHEST = 0.46
# Standard deviation of the bell-shaped region around a spot that is moved with it.
MOVED = 0.16
# Standard deviation of the Gaussian filter over which the darkness of a spot is added up.
SPOT_SIZE = 0.06
# Pixels as dark as this belong to the background.
BACKGROUND = 0.15
# Largest norm of the distance beside the pixels, relative to that of the image (of one channel).
DISTANCE_WEIGHT = 0.1


def find_spot(image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the darkest spot of a float image ``[S, S, C]`` in [0, 1] is: its distance from the centre, and the angle.

    The distance is at most ``FARTHEST``, the angle is in radians, from the right over the bottom.

    Pixels count by the square of how much darker they are than the object's mean less half a standard deviation. The
    place is a mean over all pixels, with weights that only the darkest surroundings have. Without any spot it is about
    the centre.

    Examples:
      >>> x = jnp.ones((16, 16, 1)).at[2:4, 7:9].set(0.5)  # a dark square at the top
      >>> distance, angle = find_spot(x)
      >>> round(float(distance), 2), round(float(angle), 2)
      (0.31, -1.57)
    """
    across, down = places(image.shape[0])
    grey = jnp.mean(image, axis=-1)
    inside = (grey > BACKGROUND) & (across**2 + down**2 < FARTHEST**2)
    count = jnp.maximum(jnp.sum(inside), 1)
    mean = jnp.sum(grey * inside) / count
    deviation = jnp.sqrt(jnp.sum(inside * jnp.square(grey - mean)) / count)
    # Not the rim, where the object's edge mixes with the background.
    within = jax.lax.reduce_window(inside.astype(jnp.float32), 1.0, jax.lax.min, (3, 3), (1, 1), "SAME")
    dark = within * jnp.square(jax.nn.relu(mean - grey - deviation / 2)) + 1e-9
    line = across[0]
    blur = jnp.exp(-jnp.square(line[:, None] - line) / (2 * SPOT_SIZE**2))
    darkness = blur @ dark @ blur
    weights = (darkness / jnp.max(darkness)) ** 8
    weights = weights / jnp.sum(weights)
    x, y = jnp.sum(weights * across), jnp.sum(weights * down)
    return jnp.minimum(jnp.hypot(x, y), FARTHEST), jnp.arctan2(y, x)


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
