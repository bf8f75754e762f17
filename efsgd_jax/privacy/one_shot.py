"""Full-batch releases: sums over all examples with Gaussian noise.

The noise is given by ``noise_multiplier``: the standard deviation of the noise on a sum, divided by the sensitivity of
the sum. Releases of the same data compose exactly: those with sigma_1, ..., sigma_k are one Gaussian release with
``sigma = (sum_k sigma_k^-2)^-1/2`` (``share_noise`` divides one release among several).

A ``Release`` adds integers only. Its lattice has a unit u, chosen so that the noise's standard deviation is
``NOISE_WIDTH`` units. Rows are clipped and rounded to multiples of u (``rows``, ``factors``, ``partners``), their sums
are exact (``exact_sums``), and the noise is added to them as integers (``noise``). No floating-point sum is involved.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.checks import check_leaves, known
from efsgd_jax.privacy.exact_sums import exact_product, shifted, squares_by_group, sum_by_group
from efsgd_jax.privacy.noise import (
    NOISE_WIDTH,
    UPWARDS,
    Integers,
    add_noise,
    lattice_noise,
    lattice_unit,
    noise_like,
    plus,
    to_floats,
    to_integers,
)
from efsgd_jax.privacy.rounding import sum_of_squares, wide

PyTree = Any
# A clip norm is at most 2^BITS units of rounding: ROW_BITS for rows that are summed, FACTOR_BITS for rows of which
# outer products are summed, PARTNER_BITS for the second factor of an outer product.
ROW_BITS, FACTOR_BITS, PARTNER_BITS = 12, 8, 14
# A sum is at most 2^MAX_SUM_BITS units of the lattice; twice that must fit into ``Integers``.
MAX_SUM_BITS = 53


def share_noise(noise_multiplier: float, shares: Sequence[float]) -> list[float]:
    """Noise multipliers of releases that together cost at most what one with ``noise_multiplier`` costs.

    Args:
      noise_multiplier: sigma of the single release; 0 for no noise.
      shares: the part of ``1/sigma^2`` that each release gets; positive, with sum at most 1.

    Raises:
      ValueError: a share is not positive, or their sum is above 1.

    Formal guarantees:
      ``sum_k sigma_k^-2 = sigma^-2 sum_k share_k``. Gaussian releases, each of which may depend on those before it,
      compose to one Gaussian release whose ``sigma^-2`` is that sum (Dong, Roth, Su, 2019, arXiv 1905.02383,
      corollary 3.3).
    """
    if min(shares) <= 0 or math.fsum(shares) > 1 + 1e-9:
        raise ValueError(f"shares {list(shares)} must be positive and at most 1 in all.")
    return [noise_multiplier / math.sqrt(share) for share in shares]


class Rows(NamedTuple):
    """Rows that are rounded to whole numbers of a unit.

    Attributes:
      values: float32 ``[N, D]``, whole numbers.
      bits: every absolute value is at most ``2^bits``.
      unit: the value that the number 1 stands for, so that the rounded rows are ``unit * values``.
    """

    values: jax.Array
    bits: int
    unit: float


def whole_rows(rows: jax.Array, l2_norm_clip: float, unit: float, bits: int) -> Rows:
    """Rows ``[N, D]`` clipped to C and rounded to whole numbers of ``unit``; a row that is not finite becomes zero.

    Args:
      rows: ``[N, D]``.
      l2_norm_clip: C.
      unit: the unit of rounding.
      bits: ``C / unit`` is at most ``2^bits``.

    Raises:
      ValueError: C is not positive, or ``C / unit`` is above ``2^bits``.

    Formal guarantees:
      The squares of each row's numbers add up, in integers, to at most ``(C / unit)^2``. The first of these that
      satisfies the bound is the result: the clipped row rounded to nearest; the row scaled down by about what rounding
      adds to its norm, by a little or by more, and rounded to nearest; the row rounded towards zero; a row of zeros.
      Each result depends on its own row and on public numbers only.
    """
    if not l2_norm_clip > 0:
        raise ValueError(f"l2_norm_clip is {l2_norm_clip}; it is above 0.")
    radius = l2_norm_clip / unit
    largest = math.floor(radius**2 * (1 - 1e-12))  # at most (C / unit)^2, in spite of the rounding of ``radius``
    if radius > 2**bits * (1 + 1e-9):
        raise ValueError(f"a clip norm of {radius:g} units does not fit into {bits} bits.")
    rows = rows.astype(jnp.float32)
    norms = jnp.sqrt(sum_of_squares(rows))[:, None]
    scale = jnp.minimum(1.0, l2_norm_clip / jnp.maximum(norms, 1e-30)) / unit
    scaled = jnp.where(jnp.isfinite(norms), rows, 0.0) * jnp.where(jnp.isfinite(norms), scale, 0.0)
    # The rounding error of a row's norm is less than 0.1%; values beyond that are clamped.
    scaled = jnp.clip(scaled, -1.001 * radius, 1.001 * radius)

    def fits(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(x.astype(jnp.int32)), axis=1, keepdims=True) <= largest

    # Rounding to nearest adds D / 12 to the squared norm in the mean, with a standard deviation of 2 / sqrt(12) = 0.58
    # times the norm. A row whose norm is then above C is scaled down by as much: by the mean plus 1 or 4 deviations.
    # Rounding it towards zero instead would set all of its small numbers to 0. The last candidate that fits is taken.
    whole = jnp.trunc(scaled * (1 - 2.0**-20))
    for deviations in (4.0, 1.0, -math.inf):
        added = max(rows.shape[1] / 12 + deviations * 0.58 * radius, 0.0) / radius**2
        candidate = jnp.round(scaled * math.sqrt(max(1 - added, 0.0)))
        whole = jnp.where(fits(candidate), candidate, whole)
    return Rows(jnp.where(fits(whole), whole, 0.0), bits, unit)


class NoiseSupply:
    """Noise for several releases, sampled by one call, which compiles much faster than many; no number is used twice.

    Args:
      key: typed PRNG key, secret and used once.
      size: the number of coordinates of all releases together; 0 if there is no noise.
    """

    def __init__(self, key: jax.Array, size: int):
        self._flat, self._taken = lattice_noise(key, (size,)) if size else None, 0

    def take(self, shape: tuple[int, ...]) -> jax.Array:
        """The next unused noise values: int32 ``shape``.

        Raises:
          ValueError: fewer unused values are left than ``shape`` has.
        """
        start, self._taken = self._taken, self._taken + math.prod(shape)
        if self._flat is None or self._taken > len(self._flat):
            raise ValueError(f"the releases need more than the {0 if self._flat is None else len(self._flat)} numbers.")
        return self._flat[start : self._taken].reshape(shape)


class Release:
    """One Gaussian release of several sums over the same examples.

    Args:
      noise: supply of noise values, which other releases may share. This release takes one value for each released
        coordinate; for ``squares`` that is D^2 for each ``[D, D]`` matrix.
      sensitivity: Delta, the l2 norm of what one example adds to all sums together. To a sum of ``rows`` one example
        adds at most the clip norm; to a sum of products, the product of the factors' clip norms (times ``weight``).
      noise_multiplier: sigma, a number; 0 for no noise and no guarantee.

    Formal guarantees:
      In units of u, one example changes the released integers by at most ``Delta / u`` in l2 norm, and the noise has
      standard deviation ``NOISE_WIDTH >= sigma Delta / u``. The release is thus one ``GaussianDpEvent(sigma)`` for
      blanking an example, up to ``noise.deviation``. All of this holds in integers, so that every rounding is included.
      The caller must ensure that the joint l2 norm of what one example adds to all sums is at most Delta, and that
      each sum is requested once.

    Examples:
      >>> x, labels = jnp.ones((5, 3)), jnp.array([0, 1, 1, 0, 1])
      >>> release = Release(NoiseSupply(jax.random.key(0), 0), sensitivity=2.0, noise_multiplier=0.0)
      >>> release.sums(release.rows(x, 2.0), labels, 2)
      Array([[2., 2., 2.],
             [3., 3., 3.]], dtype=float32)
    """

    def __init__(self, noise: NoiseSupply, sensitivity: float, noise_multiplier: float):
        if not (sensitivity > 0 and noise_multiplier >= 0):
            raise ValueError(
                f"sensitivity is {sensitivity} and noise_multiplier {noise_multiplier}: the first is above 0, the "
                "second at least 0, where 0 is no noise and no guarantee."
            )
        self._supply = noise
        self._noisy = noise_multiplier > 0
        self.sensitivity = sensitivity
        self.std = sensitivity * noise_multiplier
        self._unit = self.std * UPWARDS / NOISE_WIDTH

    def rows(self, rows: jax.Array, l2_norm_clip: float, *, bits: int = ROW_BITS) -> Rows:
        """Clips rows ``[N, D]`` to C and rounds them, for ``sums``."""
        return whole_rows(rows, l2_norm_clip, self._rounding_unit(l2_norm_clip, bits), bits)

    def constant(self, value: float, count: int, like: Rows) -> Rows:
        """A column ``[count, 1]`` of ``value``, rounded down to the unit of ``like``; its sum is a count."""
        # With the factor, a multiple of the unit is not rounded down because of a rounding error of the division. The
        # relative 1e-12 that it can add to the sensitivity is covered by ``UPWARDS``.
        number = math.floor(value / like.unit * (1 + 1e-12))
        return Rows(jnp.full((count, 1), float(number)), max(like.bits, number.bit_length()), like.unit)

    def factors(self, rows: jax.Array, l2_norm_clip: float, weight: float = 1.0) -> Rows:
        """Clips rows ``[N, D]`` to C and rounds them to multiples of a unit for which ``squares`` is exact.

        What one row adds there, ``weight r r^T``, has norm at most ``weight C^2``.
        """
        unit = self._rounding_unit(weight * l2_norm_clip**2, 2 * FACTOR_BITS)
        return whole_rows(rows, l2_norm_clip, math.sqrt(unit / weight), FACTOR_BITS)

    def partners(self, rows: jax.Array, of: Rows, l2_norm_clip: float, longest: float) -> Rows:
        """Clips rows ``[N, Q]`` to C and rounds them, for ``products`` with rows ``of`` of norm at most ``longest``."""
        unit = self._rounding_unit(longest * l2_norm_clip, FACTOR_BITS + PARTNER_BITS)
        return whole_rows(rows, l2_norm_clip, unit / of.unit, PARTNER_BITS)

    def sums(self, rows: Rows, groups: jax.Array, num_groups: int) -> jax.Array:
        """Sums ``[G, D]`` of the rows of each group, with noise; ``groups`` is int ``[N]``."""
        return self._noised(sum_by_group(rows.values, groups, num_groups, rows.bits), rows.unit, len(groups), rows.bits)

    def products(self, a: Rows, b: Rows) -> jax.Array:
        """``sum_i a_i b_i^T``, ``[P, Q]``, with noise."""
        return self._noised(
            exact_product(a.values, b.values, a.bits, b.bits), a.unit * b.unit, len(a.values), a.bits + b.bits
        )

    def squares(self, rows: Rows, groups: jax.Array, num_groups: int, weight: float = 1.0) -> jax.Array:
        """``weight sum_i r_i r_i^T`` over the rows of each group, ``[G, D, D]``, with symmetric noise.

        The noise has the release's standard deviation on the diagonal, and 1 / sqrt(2) of it elsewhere. In the
        coordinates ``(a_ii, sqrt(2) a_ij)``, which preserve the Frobenius norm, all noise is independent and has the
        same standard deviation.
        """
        if groups.shape != (len(rows.values),):
            raise ValueError(f"there are {len(rows.values)} rows and groups of shape {groups.shape}; each row has one.")
        total = squares_by_group(rows.values, groups, num_groups, rows.bits)
        return self._noised(total, weight * rows.unit**2, len(groups), 2 * rows.bits, symmetric=True)

    def _rounding_unit(self, length: float, bits: int) -> float:
        """The unit of rounding: the smallest ``2^p u``, p >= 0, for which ``length`` is at most ``2^bits`` units.

        ``length`` is the largest norm of what one row adds to a sum. Without noise the unit is ``length / 2^bits``.
        """
        if not self._noisy:
            return length / 2**bits
        return self._unit * 2 ** max(0, math.ceil(math.log2(length / self._unit) - bits))

    def _noised(self, total: Integers, unit: float, count: int, bits: int, *, symmetric: bool = False) -> jax.Array:
        """``unit total`` plus noise, for a sum of ``count`` rows that each add at most ``2^bits`` to an entry."""
        if not self._noisy:
            return to_floats(total) * unit
        if count * 2**bits * unit > 2**MAX_SUM_BITS * self._unit:
            raise ValueError(
                f"the noise, of std {self.std:g}, is too little for a sum of {count} rows of norm up to "
                f"{2**bits * unit:g}: use a larger noise_multiplier, or 0 for none."
            )
        total = shifted(total, round(math.log2(unit / self._unit)))
        z = self._supply.take(total.low.shape)
        if not symmetric:
            return to_floats(plus(total, z)) * self._unit
        # Computed in half units, so that the mean of two integers is an integer.
        double = plus(plus(shifted(total, 1), z), jnp.swapaxes(z, -1, -2))
        return to_floats(double) * (self._unit / 2)


def gaussian_release(
    key: jax.Array,
    sums: PyTree,
    sensitivity: jax.typing.ArrayLike,
    noise_multiplier: jax.typing.ArrayLike,
    *,
    squares: PyTree = (),
) -> tuple[PyTree, PyTree]:
    """Adds noise of standard deviation ``sensitivity sigma`` to floating-point sums that the caller computed.

    Args:
      key: typed PRNG key, secret and used once.
      sums: a pytree of float arrays.
      sensitivity: l2 norm, over all leaves of ``sums`` and ``squares`` together, of what one example adds, including
        the rounding of the sums.
      noise_multiplier: sigma, above 0.
      squares: a pytree of sums of symmetric matrices ``[..., D, D]``, of which both triangles count in the norm.

    Returns:
      ``sums`` and ``squares``, with noise, on a public lattice.

    Raises:
      ValueError: ``sensitivity`` or ``noise_multiplier`` is known and not above 0, or a leaf is not floating-point.

    Formal guarantees:
      One ``GaussianDpEvent(sigma)`` for blanking an example that changes ``(sums, squares)`` by at most
      ``sensitivity``. What rounding to the lattice adds is covered by more noise (``noise.lattice_unit``). The caller
      must ensure the sensitivity: one row can change a floating-point sum of many rows by more than its norm. The sums
      of ``Release`` are exact and do not have this problem.
    """
    for name, number in (("sensitivity", known(sensitivity)), ("noise_multiplier", known(noise_multiplier))):
        if number is not None and not number > 0:
            raise ValueError(f"{name} is {number:g}; it is above 0, or the release would have no noise.")
    check_leaves((sums, squares), "the sums")
    sums, squares = jax.tree.map(lambda x: wide(jnp.asarray(x)), (sums, squares))
    size = sum(x.size for x in jax.tree.leaves((sums, squares)))
    unit = lattice_unit(noise_multiplier * jnp.asarray(sensitivity), size, sensitivity)
    sums_key, squares_key = jax.random.split(key)

    def symmetric(value: jax.Array, z: jax.Array) -> jax.Array:
        half = jnp.asarray(unit / 2, value.dtype)  # in half units the mean of two integers is an integer
        double = plus(plus(to_integers(value * (1 / half)), z), jnp.swapaxes(z, -1, -2))
        return to_floats(double, value.dtype) * half

    return add_noise(sums_key, sums, unit), jax.tree.map(symmetric, squares, noise_like(squares_key, squares))
