"""What stands for a blank region in runs: an interpolation of the public pixels around it."""

import jax
import jax.numpy as jnp

# Images that are interpolated at a time.
AT_ONCE = 500


def interpolated(images: jax.Array, region: jax.Array) -> jax.Array:
    """The images with the pixels of a region replaced by the harmonic interpolation of those around it.

    A black region would teach a generator black regions: its public gradient is not clipped, and what the real pixels
    change in it is. The interpolation is near what pictures often have there.

    Args:
      images: uint8 ``[N, S, S, C]``.
      region: bool ``[S, S, 1]``, True in some pixels and not in all.

    Returns:
      uint8 ``[N, S, S, C]``. Outside of the region nothing changes. Inside, each pixel is the mean of its four
      neighbours, as far as ``4 S`` steps of relaxation bring it there from the mean of the public pixels.

    Formal guarantees:
      The result is a function of each image's pixels outside of the region, bit by bit.

    Examples:
      >>> row = jnp.array([10, 255, 0, 40], jnp.uint8)[None, None, :, None]
      >>> interpolated(row, jnp.array([False, True, True, False])[None, :, None]).ravel()
      Array([10, 20, 30, 40], dtype=uint8)
    """
    steps = 4 * max(images.shape[1:3])

    def one(image: jax.Array) -> jax.Array:
        known = jnp.where(region, 0.0, image.astype(jnp.float32))
        mean = jnp.sum(known, axis=(0, 1)) / jnp.sum(~region)

        def relaxed(_: int, x: jax.Array) -> jax.Array:
            padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
            around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
            return jnp.where(region, around / 4, known)

        found = jax.lax.fori_loop(0, steps, relaxed, jnp.where(region, mean, known))
        return jnp.round(found).astype(image.dtype)

    return jax.lax.map(one, images, batch_size=AT_ONCE)
