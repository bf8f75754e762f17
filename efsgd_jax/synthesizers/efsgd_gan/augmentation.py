"""Copies of one image, each moved by a few pixels: several looks at an example within its one gradient."""

import jax
import jax.numpy as jnp

# The longest move along an axis, in sides of the image.
LONGEST_MOVE = 1 / 14


def moved_copies(key: jax.Array, image: jax.Array, copies: int) -> jax.Array:
    """``[S, S, C]`` to ``[copies, S, S, C]``, moved by whole pixels; the border is continued.

    Augmentation multiplicity of De et al., 2022, arXiv 2204.13650: the mean of the copies' gradients is one example's
    gradient, clipped once, so that it costs no privacy.
    """
    most = max(1, round(LONGEST_MOVE * image.shape[0]))
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (copies, 2), 0, 2 * most + 1)
    return jax.vmap(lambda corner: jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape))(corners)
