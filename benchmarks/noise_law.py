"""The laws of two samplers by enumeration: float32 ``jax.random.normal``, and this library's whole numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.privacy.gaussian_table import LARGEST, SLOT_BITS, THRESHOLD_BITS, probabilities
from efsgd_jax.privacy.noise import BASE


@functools.cache
def float_normals() -> np.ndarray:
    """All 2^23 values of ``jax.random.normal`` in float32, equally likely, sorted.

    They are ``sqrt(2) erfinv(u)`` of u on a grid. A million draws are compared with them.
    """
    low = np.nextafter(np.float32(-1), np.float32(0))
    steps = np.arange(2**23, dtype=np.float32) * np.float32(2.0**-23)

    @jax.jit
    def of_steps(steps: jax.Array) -> jax.Array:
        uniform = jnp.maximum(low, steps * (jnp.float32(1) - low) + low)
        return jnp.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)

    values = np.sort(np.asarray(of_steps(steps)))
    drawn = np.asarray(jax.jit(lambda: jax.random.normal(jax.random.key(0), (1_000_000,)))())
    assert np.isin(drawn, values).all()
    return values


@functools.cache
def _digit() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of one digit, from -K to K, and ``P(X > k - K - 1)`` for ``k = 0, 1, ...``."""
    scale = 1 << (SLOT_BITS + THRESHOLD_BITS)
    half = [p / scale for p in probabilities()]  # true division of integers rounds once
    whole = np.array(half[:0:-1] + half)
    return whole, np.concatenate([np.cumsum(whole[::-1])[::-1], [0.0]])


@functools.cache
def _low_tail() -> np.ndarray:
    """``P(X_0 + 64 X_1 > s)`` from ``s = -65 K - 1``."""
    p, _ = _digit()
    total = np.zeros(2 * LARGEST * (BASE + 1) + 1)
    for i, share in enumerate(p):
        total[BASE * i : BASE * i + len(p)] += share * p
    return np.concatenate([np.cumsum(total[::-1])[::-1], [0.0]])


def tail(bound: float) -> float:
    """``P(Z > bound)`` of ``noise.lattice_noise``, in units of the lattice.

    A sum of products of positive numbers: relatively within 1e-10 of the law in exact rationals.
    """
    p, upper = _digit()
    low, low_largest = _low_tail(), LARGEST * (BASE + 1)
    bound = math.floor(bound)
    k = np.arange(-LARGEST, LARGEST + 1)
    result = 0.0
    for share, x3 in zip(p, k, strict=True):
        rest = bound - BASE**3 * int(x3)
        # X_2 of at least this many is always enough, below that many never.
        enough = max(-LARGEST, math.ceil((rest + low_largest + 1) / BASE**2))
        possible = max(-LARGEST, math.floor((rest - low_largest) / BASE**2))
        certain = upper[enough + LARGEST] if enough <= LARGEST else 0.0
        between = np.arange(possible, min(enough, LARGEST + 1))
        index = np.clip(rest - BASE**2 * between + low_largest + 1, 0, len(low) - 1)
        result += share * (certain + float(p[between + LARGEST] @ low[index]))
    return result
