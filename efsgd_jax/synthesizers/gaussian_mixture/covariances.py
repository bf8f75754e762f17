"""Covariance matrices from noisy second moments. All of it is post-processing.

The noise of a second moment is symmetric, with a standard deviation s on the diagonal and ``s / sqrt(2)`` off it.
"""

import jax
import jax.numpy as jnp

# Variance, over the components of a class or over classes, of the ratio between the sizes of their covariances.
SIZE_VARIANCE = 0.3
# Limits of this ratio.
SMALLEST, LARGEST = 0.2, 4.0


def shrunk(noisy: jax.Array, std: jax.Array, target: jax.Array) -> jax.Array:
    """Noisy covariances, shrunk towards a target, entry by entry.

    First the target is multiplied by the ratio of the sizes of covariance and target. Then a Wiener filter takes from
    each entry what stands out from the noise. It assumes that the entry (i, j) of a covariance differs from the
    target's by a random number of variance ``t_ii t_jj``, where t is the target::

        r = <noisy, t> / <t, t>        result = r t + w (noisy - r t),   w_ij = r^2 t_ii t_jj / (r^2 t_ii t_jj + s_ij^2)

    Thus the entries of directions with much variance are kept, and those of directions with little are the target's.

    Args:
      noisy: ``[G, d, d]``.
      std: standard deviation s of the noise on the diagonal of each of them, ``[G]``.
      target: ``[G, d, d]``, with little noise. Where its diagonal is not above 0, so is that of the result.

    Examples:
      >>> shrunk(jnp.array([[[3.0]]]), std=jnp.array([1e3]), target=jnp.array([[[2.0]]])).round(3)
      Array([[[2.]]], dtype=float32)
    """
    square = jnp.maximum(jnp.sum(jnp.square(target), axis=(1, 2)), 1e-20)
    ratio = jnp.sum(noisy * target, axis=(1, 2)) / square
    ratio = 1 + (ratio - 1) * SIZE_VARIANCE / (SIZE_VARIANCE + jnp.square(std) / square)
    target = jnp.clip(ratio, SMALLEST, LARGEST)[:, None, None] * target
    diagonal = jnp.maximum(jnp.diagonal(target, axis1=1, axis2=2), 0.0)
    signal = diagonal[:, :, None] * diagonal[:, None, :]
    noise = jnp.square(std)[:, None, None] * (1 + jnp.eye(target.shape[-1])) / 2
    return target + (noisy - target) * signal / jnp.maximum(signal + noise, 1e-20)


def positive(symmetric: jax.Array) -> jax.Array:
    """The nearest positive semidefinite matrix of the same trace, for each of ``[G, d, d]``.

    If only the negative eigenvalues were set to 0, noise would increase the variance.

    Examples:
      >>> jnp.diagonal(positive(jnp.diag(jnp.array([3.0, 1.0, -1.0]))[None])[0]).round(3)
      Array([2.5, 0.5, 0. ], dtype=float32)
    """
    values, vectors = jnp.linalg.eigh(symmetric)

    def of_same_sum(values: jax.Array) -> jax.Array:
        """The values minus a constant, those below 0 set to 0, with the sum of all values, or with 0 if that is
        negative."""
        total, descending = jnp.maximum(jnp.sum(values), 0.0), values[::-1]
        excess = (jnp.cumsum(descending) - total) / jnp.arange(1, len(values) + 1)
        last = jnp.sum(descending > excess) - 1
        return jnp.maximum(values - excess[jnp.maximum(last, 0)], 0.0)

    return jnp.einsum("gij,gj,gkj->gik", vectors, jax.vmap(of_same_sum)(values), vectors)
