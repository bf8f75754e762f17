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
from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.checks import check_leaves, known
from efsgd_jax.privacy.exact_sums import shifted
from efsgd_jax.privacy.noise import (
    NOISE_WIDTH,
    UPWARDS,
    add_noise,
    lattice_noise,
    lattice_unit,
    noise_like,
    plus,
    to_floats,
    to_integers,
)
from efsgd_jax.privacy.rounding import wide
from efsgd_jax.privacy.row_sums import (
    FACTOR_BITS,
    PARTNER_BITS,
    ROW_BITS,
    ExactSum,
    Rows,
    sum_rows,
    sum_squares,
    whole_rows,
)

PyTree = Any
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
        """Clips rows ``[N, Q]`` to C and rounds them, for ``sum_products``.

        Args:
          rows: the rows.
          of: the other factor of each product.
          l2_norm_clip: C.
          longest: the largest norm of a row of ``of``.
        """
        unit = self._rounding_unit(longest * l2_norm_clip, FACTOR_BITS + PARTNER_BITS)
        return whole_rows(rows, l2_norm_clip, unit / of.unit, PARTNER_BITS)

    def sums(self, rows: Rows, groups: jax.Array, num_groups: int) -> jax.Array:
        """Sums ``[G, D]`` of the rows of each group, with noise; ``groups`` is int ``[N]``."""
        return self.noised(sum_rows(rows, groups, num_groups), len(groups))

    def squares(self, rows: Rows, groups: jax.Array, num_groups: int, weight: float = 1.0) -> jax.Array:
        """``weight sum_i r_i r_i^T`` over the rows of each group, ``[G, D, D]``, with symmetric noise.

        The noise has the release's standard deviation on the diagonal, and 1 / sqrt(2) of it elsewhere. In the
        coordinates ``(a_ii, sqrt(2) a_ij)``, which preserve the Frobenius norm, all noise is independent and has the
        same standard deviation.
        """
        return self.noised(sum_squares(rows, groups, num_groups, weight), len(groups))

    def _rounding_unit(self, length: float, bits: int) -> float:
        """The unit of rounding: the smallest ``2^p u``, p >= 0, for which ``length`` is at most ``2^bits`` units.

        ``length`` is the largest norm of what one row adds to a sum. Without noise the unit is ``length / 2^bits``.
        """
        if not self._noisy:
            return length / 2**bits
        return self._unit * 2 ** max(0, math.ceil(math.log2(length / self._unit) - bits))

    def noised(self, exact: ExactSum, count: int) -> jax.Array:
        """A sum of ``count`` rows with noise, which must be asked for once."""
        total, unit, bits = exact.total, exact.unit, exact.bits
        if not self._noisy:
            return to_floats(total) * unit
        if count * 2**bits * unit > 2**MAX_SUM_BITS * self._unit:
            raise ValueError(
                f"the noise, of std {self.std:g}, is too little for a sum of {count} rows of norm up to "
                f"{2**bits * unit:g}: use a larger noise_multiplier, or 0 for none."
            )
        total = shifted(total, round(math.log2(unit / self._unit)))
        z = self._supply.take(total.low.shape)
        if not exact.symmetric:
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
