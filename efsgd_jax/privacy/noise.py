"""Gaussian noise with a known distribution: discrete, on a public lattice, and sampled in integers.

``jax.random.normal`` in float32 takes 2^23 values only, none beyond 5.42 standard deviations, and the low bits of
``x + noise`` reveal to which ``x`` the noise was added (Mironov, 2012). Here noise of standard deviation ``std`` is an
integer ``Z`` times the lattice's unit ``g = std / NOISE_WIDTH``. The release is ``g (round(x / g) + Z)``, which is a
function of one integer. With ``X_j`` independent samples from ``gaussian_table``, whose standard deviation is r = 237
(``gaussian_table.WIDTH``)::

    Z = X_0 + 64 X_1 + 64^2 X_2 + 64^3 X_3            NOISE_WIDTH^2 = r^2 (1 + 64^2 + 64^4 + 64^6)

Formal guarantees:
  For every integer v, the distribution of ``v + Z`` is within total variation ``2^-DEVIATION_BITS`` of a
  post-processing of ``N(v, NOISE_WIDTH^2 - 14)`` (docs/privacy/arithmetic.md, "Noise"). Therefore d coordinates add
  ``(1 + exp(epsilon)) d 2^-DEVIATION_BITS`` to delta (``deviation``). The variance that is smaller by 14 corresponds to
  a standard deviation that is smaller by a relative 2e-15; the factor ``UPWARDS`` on ``std`` is larger than that. The
  arithmetic is in integers, and so the same on every backend. The random bits are assumed to be those of a random
  function (threefry2x32 with a secret key of 64 bits).
"""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.gaussian_table import FIRST_BITS, LARGEST, MORE_WORDS, SLOT_BITS, WIDTH, gaussian_table

PyTree = Any
# Z has DIGITS digits X_j in base BASE: enough for NOISE_WIDTH to be far above the error of rounding to the lattice, and
# so few that Z fits into an int32.
BASE, DIGITS = 64, 4
# Standard deviation of Z, in units of the lattice: about 6.2e7.
NOISE_WIDTH = WIDTH * math.sqrt(sum(BASE ** (2 * j) for j in range(DIGITS)))
# v + Z, for every integer v, is within total variation 2^-DEVIATION_BITS of a post-processing of a Gaussian around v
# (docs/privacy/arithmetic.md, "Noise").
DEVIATION_BITS = 368
# Number of bits of the field ``low`` of ``Integers``: an integer is stored as two numbers, since JAX has no int64 by
# default.
LIMB_BITS = 24
# Values are clamped to 2^MAX_VALUE_BITS units of the lattice: 2.9e8 standard deviations of the noise.
MAX_VALUE_BITS = LIMB_BITS + 30
# ``std`` is multiplied by this factor. It covers the rounding error of ``std`` in float32 and the reduction of the
# variance by 14 (see above).
UPWARDS = 1 + 2.0**-20
# Noise for more coordinates than this is sampled in blocks of so many, since the random bits and the digits of Z take
# several times the memory of Z.
BLOCK = 2**22
# The smallest unit of the lattice that is used; its inverse is representable in float32.
SMALLEST_UNIT = 1e-37


class Integers(NamedTuple):
    """Integers ``high 2^24 + low`` of up to 54 bits; both fields are int32 and ``0 <= low < 2^24``."""

    high: jax.Array
    low: jax.Array


def lattice_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Samples Z: int32 of the given shape, with standard deviation ``NOISE_WIDTH`` and ``|Z| <= 1.46e9``.

    Args:
      key: typed PRNG key, secret and used once.
      shape: the shape of the result. One call for many coordinates compiles faster than many calls.
    """
    table = gaussian_table()
    bits_key, more_key = jax.random.split(key)
    bits = jax.random.bits(bits_key, (DIGITS, *shape), jnp.uint32)
    slots, bits = bits >> FIRST_BITS, bits & (2**FIRST_BITS - 1)
    first = jnp.asarray(table.first)[slots]  # one look-up for both: look-ups dominate the running time
    threshold, alias = first >> SLOT_BITS, first & (2**SLOT_BITS - 1)
    chosen = jnp.where(bits < threshold, slots, alias)
    digits = _decided(more_key, chosen, slots, bits == threshold).astype(jnp.int32) - LARGEST
    total = digits[DIGITS - 1]
    for digit in digits[DIGITS - 2 :: -1]:
        total = BASE * total + digit
    return total


def _decided(key: jax.Array, chosen: jax.Array, slots: jax.Array, equal: jax.Array) -> jax.Array:
    """``chosen``, corrected where the first bits equal those of the threshold, which happens once in 2^18.

    There the choice between a slot and its alias is made by comparing further random words with the remaining words of
    the threshold. This is done for one element at a time: there are few such elements, and sampling these words for
    all of them would take longer than everything else.
    """
    table, shape, size = gaussian_table(), chosen.shape, chosen.size
    rows = max(1, math.isqrt(size))  # in rows, finding one of n elements looks at 2 sqrt(n) of them instead of n
    columns = max(1, math.ceil(size / rows))

    def by_rows(x: jax.Array) -> jax.Array:
        return jnp.pad(x.ravel(), (0, rows * columns - size)).reshape(rows, columns)

    slots = by_rows(slots)

    def decide(carry: Any) -> Any:
        count, chosen, equal, left = carry  # left: the number of undecided elements in each row
        row = jnp.argmax(left)
        column = jnp.argmax(equal[row])
        slot = slots[row, column]
        bits = jax.random.bits(jax.random.fold_in(key, count), (MORE_WORDS,), jnp.uint32)
        words = jnp.asarray(table.thresholds)[1:, slot]
        differs = jnp.argmax(bits != words)  # the first word that differs; 0 if all are equal, where ``<`` is False
        value = jnp.where(bits[differs] < words[differs], slot, jnp.asarray(table.aliases)[slot])
        return (
            count + 1,
            chosen.at[row, column].set(value),
            equal.at[row, column].set(False),
            left.at[row].add(-1),
        )

    equal = by_rows(equal)
    start = (jnp.int32(0), by_rows(chosen), equal, jnp.sum(equal, axis=1, dtype=jnp.int32))
    _, chosen, _, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[3] > 0), decide, start)
    return chosen.ravel()[:size].reshape(shape)


def noise_like(key: jax.Array, tree: PyTree) -> PyTree:
    """Samples Z for every coordinate of a pytree, by one call of ``lattice_noise``."""
    return _unflattened(lattice_noise(key, (sum(x.size for x in jax.tree.leaves(tree)),)), tree)


def _unflattened(flat: jax.Array, tree: PyTree) -> PyTree:
    """Splits a vector ``[d]`` into a pytree with the structure and shapes of ``tree``."""
    leaves, structure = jax.tree.flatten(tree)
    ends = list(itertools.accumulate(math.prod(x.shape) for x in leaves))
    parts = [flat[end - math.prod(x.shape) : end].reshape(x.shape) for x, end in zip(leaves, ends, strict=True)]
    return jax.tree.unflatten(structure, parts)


def lattice_unit(std: jax.typing.ArrayLike, size: int, sensitivity: jax.typing.ArrayLike) -> jax.Array:
    """The unit g of the lattice for noise of at least ``std`` on a vector whose unrounded sensitivity is given.

    Rounding ``x / g`` changes each coordinate by at most half a unit, so that the distance between the vectors of two
    neighbours grows by at most ``sqrt(size)`` units. Noise of standard deviation
    ``std (1 + g sqrt(size) / sensitivity)`` covers this.

    Args:
      std: standard deviation of the noise for the unrounded vector, a scalar.
      size: d, the number of coordinates.
      sensitivity: sensitivity of the vector in l2 norm, a scalar.

    Returns:
      g; 0 if ``std`` is 0 (no noise). It is NaN if the noise would have to be more than twice ``std``, or if the unit
      is at most ``SMALLEST_UNIT``: the release is then NaN instead of unprotected.
    """
    std, sensitivity = jnp.asarray(std), jnp.asarray(sensitivity)
    # g NOISE_WIDTH = std (1 + g sqrt(d) / sensitivity), solved for g.
    room = NOISE_WIDTH - math.sqrt(size) * std / sensitivity
    unit = std / room * UPWARDS
    return jnp.where(std == 0, 0.0, jnp.where((room > NOISE_WIDTH / 2) & (unit > SMALLEST_UNIT), unit, jnp.nan))


def add_noise(key: jax.Array, tree: PyTree, unit: jax.typing.ArrayLike) -> PyTree:
    """``g (round(value / g) + Z)`` for every leaf: float arrays on the lattice; ``tree`` itself if g is 0.

    Args:
      key: typed PRNG key, secret and used once.
      tree: pytree of float32 or float64 arrays.
      unit: g, from ``lattice_unit``; a scalar.
    """

    def one(value: jax.Array, z: jax.Array) -> jax.Array:
        own = jnp.asarray(jnp.where(unit == 0, 1.0, unit), value.dtype)
        noisy = to_floats(plus(to_integers(value * (1 / own)), z), value.dtype) * own
        return jnp.where(unit == 0, value, noisy)

    leaves = jax.tree.leaves(tree)
    if len({x.dtype for x in leaves}) != 1:
        return jax.tree.map(one, tree, noise_like(key, tree))
    # As one vector: the result is the same, with fewer operations, and the time for compilation is shorter by a fifth.
    flat = jnp.concatenate([jnp.ravel(x) for x in leaves])
    if flat.size <= BLOCK:
        return _unflattened(one(flat, lattice_noise(key, flat.shape)), tree)
    blocks = -(-flat.size // BLOCK)
    rows = jnp.pad(flat, (0, blocks * BLOCK - flat.size)).reshape(blocks, BLOCK)

    def noisy(numbered: tuple[jax.Array, jax.Array]) -> jax.Array:
        index, row = numbered
        return one(row, lattice_noise(jax.random.fold_in(key, index), row.shape))

    return _unflattened(jax.lax.map(noisy, (jnp.arange(blocks), rows)).reshape(-1)[: flat.size], tree)


def to_integers(x: jax.Array) -> Integers:
    """Rounds floats to the nearest integers, clamped to +-2^54; NaN becomes 0, since integers have no NaN."""
    largest = 2.0**MAX_VALUE_BITS
    x = jnp.round(jnp.clip(jnp.where(jnp.isnan(x), 0.0, x), -largest, largest))
    high = jnp.floor(x * 2.0**-LIMB_BITS)
    low = x - high * 2.0**LIMB_BITS  # exact: both are multiples of the last place of x
    return Integers(high.astype(jnp.int32), low.astype(jnp.int32))


def plus(a: Integers, b: jax.Array) -> Integers:
    """``a + b``, for an int32 array b with ``|b| <= 2^31 - 2^24``."""
    low = a.low + b
    return Integers(a.high + (low >> LIMB_BITS), low & (2**LIMB_BITS - 1))


def to_floats(a: Integers, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    """Converts to floats: the nearest one or a neighbour of it, which depends on the integer alone."""
    return a.high.astype(dtype) * 2.0**LIMB_BITS + a.low.astype(dtype)


def deviation(epsilon: float, draws: float) -> float:
    """What the deviation of the noise from a Gaussian adds to delta: ``(1 + exp(epsilon)) draws 2^-368``.

    ``draws`` is the number of coordinates of noise in all steps. The result is below 1e-12 for every epsilon up to 200
    and 10^11 coordinates (parameters times steps), which is why no report charges it.

    Examples:
      >>> deviation(10.0, 1e11) < 1e-90
      True
      >>> deviation(200.0, 1e11) < 1e-12
      True
    """
    logarithm = float(jnp.logaddexp(0.0, epsilon)) + math.log(draws) - DEVIATION_BITS * math.log(2)
    return math.exp(logarithm)
