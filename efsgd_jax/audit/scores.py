"""Scores of attacks: likelihood ratios, and exact tests for noise that cancels, is missing, or is a float32 normal.

In every score ``seen`` is the release of all steps ``[T, k]``, scaled so that its noise has variance 1, ``change`` is
what the canary adds to it in a step in which it takes part, and ``q`` is the sampling probability.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Two numbers that differ by less than this, in standard deviations of the noise, count as equal. Rounding errors are
# smaller, and independent noise is rarely that close.
TOLERANCE = 2e-5
# Weight of one such coincidence of two numbers in comparison with a log likelihood ratio.
CERTAIN = 100.0
# How many values ``jax.random.normal`` can take, and how many are tried on either side of the released one.
NORMAL_NUMBERS, NEIGHBOURS = 2**23, 16


def likelihood_ratio(seen: jax.Array, change: jax.Array, q: Any) -> jax.Array:
    """The log likelihood ratio if the canary takes part in each step with probability q: the most powerful score."""
    each = jnp.sum(seen * change - change**2 / 2, axis=1)
    return jnp.sum(jnp.logaddexp(jnp.log1p(-q), jnp.log(q) + each))


def every_coordinate(seen: jax.Array, change: jax.Array, q: Any) -> jax.Array:
    """``likelihood_ratio``, plus a test of every pair of coordinates of the whole run for the same or no noise.

    If two coordinates have the same noise, their difference is exactly the difference of what the canary adds to them
    if it is present, and 0 if it is absent. Zero is included as one more coordinate: a coordinate without noise is
    exactly what the canary adds, or 0. With independent noise such a coincidence happens in fewer than one of 50,000
    pairs, with the canary as well as without.
    """
    x, c = (jnp.append(v.reshape(-1), 0.0) for v in (seen, change))
    i, j = np.triu_indices(len(x), 1)
    apart, moved = x[i] - x[j], c[i] - c[j]
    telling = jnp.abs(moved) > 10 * TOLERANCE
    with_canary = jnp.sum(telling & (jnp.abs(apart - moved) < TOLERANCE))
    without = jnp.sum(telling & (jnp.abs(apart) < TOLERANCE))
    return likelihood_ratio(seen, change, q) + CERTAIN * (with_canary - without)


def normal_of(number: jax.Array) -> jax.Array:
    """The value that ``jax.random.normal`` computes from the ``number``-th of its 2^23 uniform numbers."""
    unit = jax.lax.bitcast_convert_type(number.astype(jnp.uint32) | np.uint32(0x3F800000), jnp.float32) - 1.0
    low = np.nextafter(np.float32(-1.0), np.float32(0.0))
    uniform = jnp.maximum(low, unit * (np.float32(1.0) - low) + low)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)


def not_a_float32_normal(seen: jax.Array, change: jax.Array, q: Any) -> jax.Array:
    """The number of coordinates that are not among the values of ``jax.random.normal`` (Mironov, 2012).

    Without the canary a coordinate is zero plus noise, which is one of these values if the noise is a float32 normal.
    With the canary it is another number plus noise, whose low bits usually show that it is not.
    """
    del change, q
    x = seen.reshape(-1, 1)
    at = jnp.round((jax.lax.erf(x / np.float32(np.sqrt(2))) + 1) * (NORMAL_NUMBERS / 2)).astype(jnp.int32)
    near = jnp.clip(at + jnp.arange(-NEIGHBOURS, NEIGHBOURS + 1), 0, NORMAL_NUMBERS - 1)
    return jnp.sum(~jnp.any(normal_of(near) == x, axis=1))
