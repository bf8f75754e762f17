"""Scores of attacks: likelihood ratios, and what needs no statistics because noise cancels or is missing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# In standard deviations of the noise: closer than this is no accident, and rounding is less.
TOLERANCE = 2e-5
# Weight of such a find against a log likelihood ratio.
CERTAIN = 100.0
# How many values ``jax.random.normal`` has, and how many are tried next to the one that was seen.
NORMAL_NUMBERS, NEIGHBOURS = 2**23, 16


def likelihood_ratio(seen: jax.Array, change: jax.Array, q: Any) -> jax.Array:
    """Log of the densities' ratio if the canary takes part in each step with chance q: the best score there is."""
    each = jnp.sum(seen * change - change**2 / 2, axis=1)
    return jnp.sum(jnp.logaddexp(jnp.log1p(-q), jnp.log(q) + each))


def every_coordinate(seen: jax.Array, change: jax.Array, q: Any) -> jax.Array:
    """``likelihood_ratio``, and every pair of coordinates of the whole run, with zero as one more of them.

    Two coordinates with the same noise differ by what the canary adds to one more than to the other, or by nothing; a
    coordinate without noise is what the canary adds, or zero. Noise that is independent looks like that once in some
    thousand pairs, in either world.
    """
    x, c = (jnp.append(v.reshape(-1), 0.0) for v in (seen, change))
    i, j = np.triu_indices(len(x), 1)
    apart, moved = x[i] - x[j], c[i] - c[j]
    telling = jnp.abs(moved) > 10 * TOLERANCE
    with_canary = jnp.sum(telling & (jnp.abs(apart - moved) < TOLERANCE))
    without = jnp.sum(telling & (jnp.abs(apart) < TOLERANCE))
    return likelihood_ratio(seen, change, q) + CERTAIN * (with_canary - without)


def normal_of(number: jax.Array) -> jax.Array:
    """``jax.random.normal`` of the ``number``-th of its 2^23 uniform numbers, as it computes them."""
    unit = jax.lax.bitcast_convert_type(number.astype(jnp.uint32) | np.uint32(0x3F800000), jnp.float32) - 1.0
    low = np.nextafter(np.float32(-1.0), np.float32(0.0))
    uniform = jnp.maximum(low, unit * (np.float32(1.0) - low) + low)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)


def not_a_float32_normal(seen: jax.Array, change: jax.Array, q: Any) -> jax.Array:
    """How many coordinates are none of the numbers that ``jax.random.normal`` can be (Mironov, 2012).

    What it has noised is one only if what was noised is zero: the last bits tell.
    """
    del change, q
    x = seen.reshape(-1, 1)
    at = jnp.round((jax.lax.erf(x / np.float32(np.sqrt(2))) + 1) * (NORMAL_NUMBERS / 2)).astype(jnp.int32)
    near = jnp.clip(at + jnp.arange(-NEIGHBOURS, NEIGHBOURS + 1), 0, NORMAL_NUMBERS - 1)
    return jnp.sum(~jnp.any(normal_of(near) == x, axis=1))
