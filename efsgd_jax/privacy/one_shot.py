"""Sums over everybody that are released once, with Gaussian noise: what a run knows of the data before its first step.

All noise is given by ``noise_multiplier``: the std of the noise on a sum over the sensitivity of the sum. Releases of
the same data compose exactly: those with sigma_1, ..., sigma_k are one Gaussian release with
``sigma = (sum_k sigma_k^-2)^-1/2`` (``share_noise`` divides one among several).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.clipped_sum import clip_by_norm

PyTree = Any


def share_noise(noise_multiplier: float, shares: Sequence[float]) -> list[float]:
    """Noise multipliers of releases that together cost what one with ``noise_multiplier`` costs.

    Args:
      noise_multiplier: of the whole; 0 for none.
      shares: of each release in the whole budget, 1/sigma^2; positive, with sum at most 1.

    Raises:
      ValueError: shares that are not positive or are more than the whole.

    Formal guarantees:
      ``sum_k sigma_k^-2 = sigma^-2 sum_k share_k``, and Gaussian releases, each of which may depend on those before,
      compose to the one of that sum (Dong, Roth, Su, 2019, arXiv 1905.02383, corollary 3.3).
    """
    if min(shares) <= 0 or math.fsum(shares) > 1 + 1e-9:
        raise ValueError(f"shares {list(shares)} must be positive and at most 1 in all.")
    return [noise_multiplier / math.sqrt(share) for share in shares]


def clip_rows(rows: jax.Array, l2_norm_clip: float) -> jax.Array:
    """Each row ``[N, ...]`` shortened to norm C at most; a row that is not finite becomes zero."""
    return jax.vmap(lambda row: clip_by_norm(row, l2_norm_clip))(rows)


def gaussian_release(
    key: jax.Array, sums: PyTree, sensitivity: float, noise_multiplier: float, *, squares: PyTree = ()
) -> tuple[PyTree, PyTree]:
    """Adds noise of std ``sensitivity sigma`` to sums over examples.

    Args:
      key: typed PRNG key, secret and used once.
      sums: a pytree of float arrays.
      sensitivity: l2 norm, over all leaves of ``sums`` and ``squares`` together, of what one example adds.
      noise_multiplier: sigma.
      squares: a pytree of sums of symmetric matrices ``[..., D, D]``, of which both triangles count in the norm.

    Returns:
      Both, with noise.

    Formal guarantees:
      One ``GaussianDpEvent(sigma)`` for adding or removing an example that moves ``(sums, squares)`` by at most
      ``sensitivity`` in the l2 (Frobenius) norm: in coordinates ``(a_ii, sqrt(2) a_ij)`` of symmetric matrices, which
      keep that norm, all noise is independent and of the same std. The caller has to see to the sensitivity.
    """
    std = sensitivity * noise_multiplier
    vector_key, square_key = jax.random.split(key)

    def noisy(key: jax.Array, tree: PyTree, noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]) -> PyTree:
        leaves, structure = jax.tree.flatten(tree)
        keys = jax.random.split(key, max(len(leaves), 1))
        return jax.tree.unflatten(structure, [x + std * noise(k, x.shape) for k, x in zip(keys, leaves, strict=False)])

    return noisy(vector_key, sums, jax.random.normal), noisy(square_key, squares, symmetric_noise)


def symmetric_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Symmetric Gaussian matrices ``[..., D, D]``: std 1 on the diagonal, 1 / sqrt(2) off it."""
    noise = jax.random.normal(key, shape)
    return (noise + jnp.swapaxes(noise, -1, -2)) / 2
