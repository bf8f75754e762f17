"""Gaussian noise whose law is known: discrete, on a public lattice, drawn in integers.

``jax.random.normal`` in float32 takes 2^23 values and ends at 5.42 standard deviations, and the low bits of
``x + noise`` tell which ``x`` was noised (Mironov, 2012). Here noise of standard deviation ``std`` is an integer ``Z``
times the lattice's unit ``g = std / NOISE_WIDTH``, and what is released is ``g (round(x / g) + Z)``: a function of one
integer. With ``X_j`` independent draws of ``gaussian_table``::

    Z = X_0 + 64 X_1 + 64^2 X_2 + 64^3 X_3            NOISE_WIDTH^2 = r^2 (1 + 64^2 + 64^4 + 64^6)

Formal guarantees:
  The law of a coordinate of Z is within total variation ``2^-DEVIATION_BITS`` of one that is a post-processing of
  ``N(0, NOISE_WIDTH^2 - 14)``, whatever integer it is added to (docs/privacy.md, "Noise"): d coordinates cost
  ``(1 + exp(epsilon)) d 2^-DEVIATION_BITS`` of delta (``deviation``), and 14 is less than the rounding of ``std``,
  which is upwards. Arithmetic: integers, hence the same on every backend; random bits as of a random function
  (threefry2x32 with a secret key of 64 bits).
"""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.gaussian_table import FIRST_BITS, LARGEST, MORE_WORDS, SLOT_BITS, WIDTH, gaussian_table

PyTree = Any
BASE, DIGITS = 64, 4
# Standard deviation of Z, in units of the lattice: 6.2e7.
NOISE_WIDTH = WIDTH * math.sqrt(sum(BASE ** (2 * j) for j in range(DIGITS)))
DEVIATION_BITS = 368
# Low limbs of ``Integers`` have this many bits.
LIMB_BITS = 24
# Values are clamped to this many units: 2.9e8 standard deviations.
MAX_VALUE_BITS = LIMB_BITS + 30
# ``std`` is taken this much larger, which is more than float32 rounds it by.
UPWARDS = 1 + 2.0**-20
# Its inverse is a float32 too.
SMALLEST_UNIT = 1e-37


class Integers(NamedTuple):
    """Integers ``high 2^24 + low`` of up to 54 bits: int32, ``0 <= low < 2^24``."""

    high: jax.Array
    low: jax.Array


def lattice_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Z: int32 ``shape``, of standard deviation ``NOISE_WIDTH``, at most 1.46e9 in size.

    Args:
      key: typed PRNG key, secret and used once.
      shape: of the result. One call for many coordinates compiles faster than many calls.
    """
    table = gaussian_table()
    bits_key, more_key = jax.random.split(key)
    bits = jax.random.bits(bits_key, (DIGITS, *shape), jnp.uint32)
    slots, bits = bits >> FIRST_BITS, bits & (2**FIRST_BITS - 1)
    first = jnp.asarray(table.first)[slots]  # one look-up for both: look-ups are what this loop waits for
    threshold, alias = first >> SLOT_BITS, first & (2**SLOT_BITS - 1)
    chosen = jnp.where(bits < threshold, slots, alias)
    digits = _decided(more_key, chosen, slots, bits == threshold).astype(jnp.int32) - LARGEST
    total = digits[DIGITS - 1]
    for digit in digits[DIGITS - 2 :: -1]:
        total = BASE * total + digit
    return total


def _decided(key: jax.Array, chosen: jax.Array, slots: jax.Array, equal: jax.Array) -> jax.Array:
    """``chosen``, with those whose first bits equal their threshold's (once in 2^18) decided by all the words left.

    One at a time: there are few, and drawing these words for all would take longer than everything else.
    """
    table, shape, size = gaussian_table(), chosen.shape, chosen.size
    rows = max(1, math.isqrt(size))  # finding one among n takes 2 sqrt(n) steps instead of n
    columns = max(1, math.ceil(size / rows))

    def by_rows(x: jax.Array) -> jax.Array:
        return jnp.pad(x.ravel(), (0, rows * columns - size)).reshape(rows, columns)

    slots = by_rows(slots)

    def decide(carry: Any) -> Any:
        count, chosen, equal, left = carry
        row = jnp.argmax(left)
        column = jnp.argmax(equal[row])
        slot = slots[row, column]
        bits = jax.random.bits(jax.random.fold_in(key, count), (MORE_WORDS,), jnp.uint32)
        words = jnp.asarray(table.thresholds)[1:, slot]
        differs = jnp.argmax(bits != words)  # the first that does; 0 if none does, which is not below
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
    """Z for every coordinate of a pytree, by one call."""
    return _divided(lattice_noise(key, (sum(x.size for x in jax.tree.leaves(tree)),)), tree)


def _divided(flat: jax.Array, tree: PyTree) -> PyTree:
    """Coordinates ``[d]`` as leaves of the tree's shapes."""
    leaves, structure = jax.tree.flatten(tree)
    ends = list(itertools.accumulate(math.prod(x.shape) for x in leaves))
    parts = [flat[end - math.prod(x.shape) : end].reshape(x.shape) for x, end in zip(leaves, ends, strict=True)]
    return jax.tree.unflatten(structure, parts)


def lattice_unit(std: jax.typing.ArrayLike, size: int, sensitivity: jax.typing.ArrayLike) -> jax.Array:
    """g, for noise of at least ``std`` on ``size`` coordinates that move by ``sensitivity`` before they are rounded.

    Rounding ``x / g`` moves each coordinate by half a unit, that is the vector by up to ``sqrt(size)`` units more;
    noise of ``std (1 + g sqrt(size) / sensitivity)`` makes up for it. NaN where that is more than twice ``std``, and
    where the unit is too small for a float: the release is then NaN, not unprotected. 0 for a ``std`` of 0, for none.

    Args:
      std: of the noise, a scalar.
      size: d.
      sensitivity: l2 norm, a scalar.
    """
    std, sensitivity = jnp.asarray(std), jnp.asarray(sensitivity)
    # g NOISE_WIDTH = std (1 + g sqrt(d) / sensitivity), solved for g.
    room = NOISE_WIDTH - math.sqrt(size) * std / sensitivity
    unit = std / room * UPWARDS
    return jnp.where(std == 0, 0.0, jnp.where((room > NOISE_WIDTH / 2) & (unit > SMALLEST_UNIT), unit, jnp.nan))


def add_noise(key: jax.Array, tree: PyTree, unit: jax.typing.ArrayLike) -> PyTree:
    """``g (round(value / g) + Z)`` for every leaf: float arrays on the lattice.

    Args:
      key: typed PRNG key, secret and used once.
      tree: pytree of float32 or float64 arrays.
      unit: g, of ``lattice_unit``; a scalar.
    """

    def one(value: jax.Array, z: jax.Array) -> jax.Array:
        own = jnp.asarray(jnp.where(unit == 0, 1.0, unit), value.dtype)
        noisy = to_floats(plus(to_integers(value * (1 / own)), z), value.dtype) * own
        return jnp.where(unit == 0, value, noisy)

    leaves = jax.tree.leaves(tree)
    if len({x.dtype for x in leaves}) != 1:
        return jax.tree.map(one, tree, noise_like(key, tree))
    # As one vector: the same numbers by fewer operations, of which compilation takes a fifth less time.
    flat = jnp.concatenate([jnp.ravel(x) for x in leaves])
    return _divided(one(flat, lattice_noise(key, flat.shape)), tree)


def to_integers(x: jax.Array) -> Integers:
    """Whole numbers next to floats, which are clamped to 54 bits; of NaN, zero (``to_floats`` has no NaN to tell)."""
    largest = 2.0**MAX_VALUE_BITS
    x = jnp.round(jnp.clip(jnp.where(jnp.isnan(x), 0.0, x), -largest, largest))
    high = jnp.floor(x * 2.0**-LIMB_BITS)
    low = x - high * 2.0**LIMB_BITS  # exact: multiples of x's own last place
    return Integers(high.astype(jnp.int32), low.astype(jnp.int32))


def plus(a: Integers, b: jax.Array) -> Integers:
    """``a + b``, for int32 of at most 2^31 - 2^24 in size."""
    low = a.low + b
    return Integers(a.high + (low >> LIMB_BITS), low & (2**LIMB_BITS - 1))


def to_floats(a: Integers, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    """The nearest float, or one next to it: a function of the integer alone."""
    return a.high.astype(dtype) * 2.0**LIMB_BITS + a.low.astype(dtype)


def deviation(epsilon: float, draws: float) -> float:
    """What the arithmetic of ``draws`` coordinates of noise adds to delta: ``(1 + exp(epsilon)) draws 2^-368``.

    Below 1e-12 for every epsilon up to 200 and 10^11 coordinates (parameters times steps), which is why no report
    charges it.

    Examples:
      >>> deviation(10.0, 1e11) < 1e-90
      True
      >>> deviation(200.0, 1e11) < 1e-12
      True
    """
    logarithm = float(jnp.logaddexp(0.0, epsilon)) + math.log(draws) - DEVIATION_BITS * math.log(2)
    return math.exp(logarithm)
