"""Rows that are rounded to whole numbers, and their exact sums, which may be added in parts.

The sum over all records is the sum over any parts of them, bit for bit, so that records that do not fit into memory are
summed part by part (``stored``).
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.exact_sums import add, exact_product, squares_by_group, sum_by_group
from efsgd_jax.privacy.noise import Integers
from efsgd_jax.privacy.rounding import sum_of_squares

# A clip norm is at most 2^BITS units of rounding: ROW_BITS for rows that are summed, FACTOR_BITS for rows of which
# outer products are summed, PARTNER_BITS for the second factor of an outer product.
ROW_BITS, FACTOR_BITS, PARTNER_BITS = 12, 8, 14


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExactSum:
    """The exact sum of rows, or of their products, before noise. Private.

    Attributes:
      total: the sum, in units.
      unit: the value that the number 1 stands for.
      bits: every row adds at most ``2^bits`` units to a number.
      symmetric: whether ``total`` is a symmetric matrix, or several.
    """

    total: Integers
    unit: float = dataclasses.field(metadata={"static": True})
    bits: int = dataclasses.field(metadata={"static": True})
    symmetric: bool = dataclasses.field(default=False, metadata={"static": True})

    def __add__(self, other: "ExactSum") -> "ExactSum":
        return dataclasses.replace(self, total=add(self.total, other.total))


def sum_rows(rows: Rows, groups: jax.Array, num_groups: int) -> ExactSum:
    """Sums ``[G, D]`` of the rows of each group; ``groups`` is int ``[N]``, and rows without a group are left out."""
    return ExactSum(sum_by_group(rows.values, groups, num_groups, rows.bits), rows.unit, rows.bits)


def sum_products(a: Rows, b: Rows) -> ExactSum:
    """``sum_i a_i b_i^T``, ``[P, Q]``."""
    return ExactSum(exact_product(a.values, b.values, a.bits, b.bits), a.unit * b.unit, a.bits + b.bits)


def sum_squares(rows: Rows, groups: jax.Array, num_groups: int, weight: float = 1.0) -> ExactSum:
    """``weight sum_i r_i r_i^T`` over the rows of each group, ``[G, D, D]``.

    Raises:
      ValueError: ``groups`` has another shape than ``[N]``.
    """
    if groups.shape != (len(rows.values),):
        raise ValueError(f"there are {len(rows.values)} rows and groups of shape {groups.shape}; each row has one.")
    total = squares_by_group(rows.values, groups, num_groups, rows.bits)
    return ExactSum(total, weight * rows.unit**2, 2 * rows.bits, symmetric=True)
