"""Direction normalisation: square pictures are turned and mirrored so that their lines run in one direction.

A mean of fields, roads and rivers that run in all directions has none of them. Pictures from above or under a
microscope have no up and down: the eight ways to turn and mirror a square show the same. Each picture is brought to the
one way in which its brightness changes most across columns, from the top left rather than from the bottom left, and in
which its right half is the brighter one. Which way it came from is not kept: a generated picture is turned at random.

Everything here is a function of one picture.
"""

import jax
import jax.numpy as jnp


def aligned(image: jax.Array) -> jax.Array:
    """An image, uint8 ``[S, S, C]``, turned and mirrored so that its lines run in one direction.

    With horizontal and vertical differences dx and dy of the brightness of 2x2 pixels, the result has
    ``sum dx dy >= 0`` and ``sum dx^2 >= sum dy^2``, and its right half is not darker than its left one. All eight
    versions of an image have the same result, but for ties.

    Formal guarantees:
      The choice is integer arithmetic on one image. One that rounding could turn over would depend on which other
      records are computed beside this one.

    Examples:
      >>> x = jnp.zeros((8, 8, 1), jnp.uint8).at[2].set(200)  # a horizontal line near the top
      >>> aligned(x)[:, :, 0].argmax(axis=1).tolist()  # is a vertical line on the right
      [5, 5, 5, 5, 5, 5, 5, 5]
    """
    side = image.shape[0]
    grey = jnp.sum(image.astype(jnp.int32), axis=-1) // image.shape[-1]
    # Sums of 4 pixels, then differences of those two apart, in a range that keeps the sums below 31 bits.
    blocks = jax.lax.reduce_window(grey, 0, jax.lax.add, (2, 2), (1, 1), "VALID") // (4 * -(-side // 64))
    across, down = blocks[1:-1, 2:] - blocks[1:-1, :-2], blocks[2:, 1:-1] - blocks[:-2, 1:-1]
    mirror = jnp.sum(across * down) < 0
    image, grey = (jnp.where(mirror, x[:, ::-1], x) for x in (image, grey))
    swap = jnp.sum(jnp.square(down)) > jnp.sum(jnp.square(across))
    image = jnp.where(swap, jnp.swapaxes(image, 0, 1), image)
    grey = jnp.where(swap, grey.T, grey)
    half = side // 2
    turn = jnp.sum(grey[:, :half]) > jnp.sum(grey[:, side - half :])
    return jnp.where(turn, image[::-1, ::-1], image)


def turned(key: jax.Array, image: jax.Array) -> jax.Array:
    """An image ``[S, S, C]`` in one of the eight ways to turn and mirror it, each as probable as the others."""
    mirror, swap, turn = jax.random.bernoulli(key, shape=(3,))
    image = jnp.where(mirror, image[:, ::-1], image)
    image = jnp.where(swap, jnp.swapaxes(image, 0, 1), image)
    return jnp.where(turn, image[::-1, ::-1], image)
