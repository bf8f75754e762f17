"""Data augmentation within one per-example gradient: copies of an image, each shifted by a few pixels."""

import jax
import jax.numpy as jnp

# The largest shift along an axis, as a fraction of the side of the image.
LONGEST_MOVE = 1 / 14


def moved_copies(key: jax.Array, image: jax.Array, copies: int) -> jax.Array:
    """Copies of an image ``[S, S, C]``, each shifted by random whole numbers of pixels: ``[copies, S, S, C]``.

    Pixels from beyond the border repeat the border. This is the augmentation multiplicity of De et al., 2022, arXiv
    2204.13650: the mean of the copies' gradients is one example's gradient and is clipped once, so that it costs no
    privacy.
    """
    most = max(1, round(LONGEST_MOVE * image.shape[0]))
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (copies, 2), 0, 2 * most + 1)
    return jax.vmap(lambda corner: jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape))(corners)
