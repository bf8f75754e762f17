"""The terms of a full-batch release: what each record adds to which sum, and how long that is at most."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.one_shot import Release
from efsgd_jax.privacy.row_sums import FACTOR_BITS, ExactSum, Rows, sum_products, sum_rows, sum_squares, whole_rows

PyTree = Any
Statistic = Callable[[Any], jax.Array]  # a function of one record


class Place(NamedTuple):
    """Where records are added, and how much of each.

    Attributes:
      group: int ``[N]``, the group of each record; it is not added to any if this is not in ``0..groups - 1``.
      groups: the number of groups.
      present: bool ``[N]``, False for the places of a unit that has fewer images than others.
      parts: m, the largest number of images of a unit. Each adds the m-th part of what one may add, so that a unit adds
        no more than one record does without units.
    """

    group: jax.Array
    groups: int
    present: jax.Array
    parts: int


class Term(Protocol):
    """One kind of sum in a release."""

    @property
    def length(self) -> float:
        """The largest l2 norm of what one record adds to the sum."""

    def coordinates(self, records: PyTree, groups: int) -> int:
        """The number of coordinates of the sum, in all ``groups`` groups together."""

    def total(self, release: Release, records: PyTree, place: Place) -> ExactSum:
        """The sum over ``records``, in their places, rounded as ``release`` needs it."""

    def result(self, noisy: jax.Array) -> Any:
        """The term's part of ``Sums``, from the sum with noise."""


class VectorSum(NamedTuple):
    """The sum ``sum_i clip(v_i, C)`` over the records of each group, and optionally the number of its records.

    The result is float32 ``[G, D]``; with counts it is a pair of this array and the counts, ``[G]``. A count is
    released as a further coordinate, in which every record adds w (``count_weight``), and is then divided by w.

    Attributes:
      of: function from a record to v, float ``[D]``.
      l2_norm_clip: C.
      count_weight: w, on the same scale as the vectors; 0 for no counts. A larger weight gives the counts less noise
        and the sums more.

    Examples:
      >>> VectorSum(lambda record: record.image, l2_norm_clip=3.0, count_weight=4.0).length
      5.0
    """

    of: Statistic
    l2_norm_clip: float
    count_weight: float = 0.0

    @property
    def length(self) -> float:
        return math.hypot(self.l2_norm_clip, self.count_weight)

    def coordinates(self, records: PyTree, groups: int) -> int:
        return groups * (_width(self.of, records) + bool(self.count_weight))

    def total(self, release: Release, records: PyTree, place: Place) -> ExactSum:
        m = place.parts
        whole = release.rows(jax.vmap(self.of)(records) / m, self.l2_norm_clip / m)
        if self.count_weight:
            count = release.constant(self.count_weight / m, len(place.group), whole)
            whole = whole._replace(values=jnp.concatenate([whole.values, count.values], axis=1), bits=count.bits)
        return sum_rows(whole, place.group, place.groups)

    def result(self, noisy: jax.Array) -> Any:
        return (noisy[:, :-1], noisy[:, -1] / self.count_weight) if self.count_weight else noisy


class SquareSum(NamedTuple):
    """The sum ``sum_i r_i r_i^T`` over the records of each group, with ``r_i = clip(v_i, C)``: float32 ``[G, D, D]``.

    Attributes:
      of: function from a record to v, float ``[D]``.
      l2_norm_clip: C.
      weight: factor by which the matrix is multiplied in the release and divided afterwards; a larger weight gives
        this term less noise and the other terms of the release more.

    Examples:
      >>> SquareSum(lambda record: record.image, l2_norm_clip=3.0).length
      9.0
    """

    of: Statistic
    l2_norm_clip: float
    weight: float = 1.0

    @property
    def length(self) -> float:
        return self.weight * self.l2_norm_clip**2

    def coordinates(self, records: PyTree, groups: int) -> int:
        return groups * _width(self.of, records) ** 2

    def total(self, release: Release, records: PyTree, place: Place) -> ExactSum:
        root = math.sqrt(place.parts)
        rows = release.factors(jax.vmap(self.of)(records) / root, self.l2_norm_clip / root, self.weight)
        return sum_squares(rows, place.group, place.groups, self.weight)

    def result(self, noisy: jax.Array) -> jax.Array:
        return noisy / self.weight


class OuterSum(NamedTuple):
    """The sum ``sum_i a_i b_i^T`` over all records, float32 ``[P, Q]``, of outer products of norm at most C.

    Attributes:
      left: function from a record to a, float ``[P]``, in whole units of ``longest / 2^8``, as ``whole_factor``
        computes it once for all steps. A vector with other numbers, or with a norm above ``longest``, counts as zero.
      right: function from a record to b, float ``[Q]``, which is clipped to ``C / longest``.
      longest: the largest norm of a, as a value and not in units.
      l2_norm_clip: C, the largest norm of one record's outer product ``a b^T``.

    Examples:
      >>> OuterSum(lambda r: r.features, lambda r: r.error, longest=2.0, l2_norm_clip=0.6).length
      0.6
    """

    left: Statistic
    right: Statistic
    longest: float
    l2_norm_clip: float

    @property
    def length(self) -> float:
        return self.l2_norm_clip

    def coordinates(self, records: PyTree, groups: int) -> int:
        del groups
        return _width(self.left, records) * _width(self.right, records)

    def total(self, release: Release, records: PyTree, place: Place) -> ExactSum:
        left = _checked(jax.vmap(self.left)(records), self.longest)
        vectors = jnp.where(place.present[:, None], jax.vmap(self.right)(records), 0.0) / place.parts
        right = release.partners(vectors, left, self.l2_norm_clip / self.longest / place.parts, self.longest)
        return sum_products(left, right)

    def result(self, noisy: jax.Array) -> jax.Array:
        return noisy


def whole_factor(vector: jax.Array, longest: float) -> jax.Array:
    """Clips a vector ``[P]`` to norm ``longest`` and rounds it to whole units of ``longest / 2^8``: float32."""
    return whole_rows(vector[None], longest, longest / 2**FACTOR_BITS, FACTOR_BITS).values[0]


def _checked(values: jax.Array, longest: float) -> Rows:
    """``Rows`` of vectors in units of ``longest / 2^8``; those with other numbers or a larger norm become zero."""
    whole = jnp.all(values == jnp.round(values), axis=1, keepdims=True)
    limit = 2.0**FACTOR_BITS
    squares = jnp.square(jnp.clip(values, -limit - 1, limit + 1).astype(jnp.int32))
    fits = jnp.sum(squares, axis=1, keepdims=True) <= 4**FACTOR_BITS
    return Rows(jnp.where(whole & fits, values, 0.0), FACTOR_BITS, longest / 2**FACTOR_BITS)


def _width(statistic: Statistic, records: PyTree) -> int:
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), records)
    shape = jax.eval_shape(statistic, one).shape
    if len(shape) != 1:
        raise UserError(f"the statistic of a record has the shape {shape}; it must be a vector, such as x.reshape(-1)")
    return shape[0]
