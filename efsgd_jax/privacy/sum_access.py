"""The access of full-batch methods: it releases exact sums of statistics of all records, with Gaussian noise.

One ``release`` may have several terms, all of which one record changes. Their joint sensitivity is computed from the
terms; methods do not state it.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.one_shot import FACTOR_BITS, NoiseSupply, Release, Rows, whole_rows
from efsgd_jax.privacy.units import Units

if TYPE_CHECKING:
    from efsgd_jax.privacy.full_batch import FullBatchMechanism

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

    def add(self, release: Release, records: PyTree, place: Place) -> Any:
        """Computes the sum over ``records``, in their places, and returns it with the noise of ``release``."""


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

    def add(self, release: Release, records: PyTree, place: Place) -> Any:
        m = place.parts
        whole = release.rows(jax.vmap(self.of)(records) / m, self.l2_norm_clip / m)
        if not self.count_weight:
            return release.sums(whole, place.group, place.groups)
        count = release.constant(self.count_weight / m, len(place.group), whole)
        both = whole._replace(values=jnp.concatenate([whole.values, count.values], axis=1), bits=count.bits)
        sums = release.sums(both, place.group, place.groups)
        return sums[:, :-1], sums[:, -1] / self.count_weight


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

    def add(self, release: Release, records: PyTree, place: Place) -> jax.Array:
        root = math.sqrt(place.parts)
        rows = release.factors(jax.vmap(self.of)(records) / root, self.l2_norm_clip / root, self.weight)
        return release.squares(rows, place.group, place.groups, self.weight) / self.weight


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

    def add(self, release: Release, records: PyTree, place: Place) -> jax.Array:
        left = _checked(jax.vmap(self.left)(records), self.longest)
        vectors = jnp.where(place.present[:, None], jax.vmap(self.right)(records), 0.0) / place.parts
        right = release.partners(vectors, left, self.l2_norm_clip / self.longest / place.parts, self.longest)
        return release.products(left, right)


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


class Sums(NamedTuple):
    """The result of a release.

    Attributes:
      values: the noisy sums, one for each term, in order.
      std: standard deviation of the noise of the release, before a term is divided by its weight.
    """

    values: list[Any]
    std: float


class SumAccess(Access):
    """The access of one step of a full-batch method, as ``FullBatchMechanism.open`` returns it.

    Args:
      mechanism: the mechanism, which determines the noise.
      records: pytree of what the phase reads of all training records, leading axis N; or ``Units`` of that, where each
        of N units has several images. A statistic is then one of an image, and a unit adds a mean over its places.
      key: typed PRNG key of this step, secret and used once.
      shared: arguments of ``Access``.

    Examples:
      >>> from efsgd_jax.privacy import FullBatchMechanism, fresh_key
      >>> access = FullBatchMechanism(100, 5.0).open(jnp.ones((100, 3)), fresh_key(), 0)
      >>> access.dataset_size
      100
    """

    def __init__(self, mechanism: "FullBatchMechanism", records: PyTree, key: jax.Array, **shared: Any):
        super().__init__(**shared)
        self._mechanism, self._key = mechanism, key
        units = records if isinstance(records, Units) else None
        self._parts = units.most if units else 1
        sizes = {len(leaf) for leaf in jax.tree.leaves(records)}
        if sizes != {mechanism.dataset_size}:
            raise UserError(
                f"the mechanism is of N = {mechanism.dataset_size} records, and the arrays have "
                f"{', '.join(map(str, sorted(sizes)))} rows; give all records, and the mechanism their number"
            )
        size = mechanism.dataset_size
        self._records, self._present = units.flat() if units else (records, jnp.ones(size, bool))
        self._note(batch_size=jnp.asarray(mechanism.dataset_size, jnp.float32))

    @property
    def dataset_size(self) -> int:
        """N, the number of records, public."""
        return self._mechanism.dataset_size

    def release(
        self, terms: Sequence[Term], *, group: Statistic | None = None, num_groups: int = 1, share: float = 1.0
    ) -> Sums:
        """Releases sums of statistics of all records, with noise for what one record adds to all terms together.

        Args:
          terms: the terms of the release: ``VectorSum``, ``SquareSum`` or ``OuterSum``.
          group: function from a record to an int, the group to whose sums the record is added; a record with a number
            outside of ``0..G-1`` is not added to any. None for one group of all records.
          num_groups: G, the number of groups.
          share: the part of the step's 1/sigma^2 that this release uses.

        Returns:
          ``(values, std)``: the noisy sums, one for each term, with a first axis of G groups; and the standard
          deviation of their noise. What a term is divided by afterwards, such as the weight of a count, divides its
          noise too.

        Raises:
          UndeclaredReleaseError: the shares of a step add up to more than 1, or the call is in a loop or another
            transformation.

        Formal guarantees:
          Every statistic is a function of one record and of what was released before, and it is clipped here. The
          release is one ``GaussianDpEvent`` with noise multiplier ``step_noise / sqrt(share)``, where ``step_noise`` is
          the mechanism's, for blanking one record. The sums are exact (``one_shot.Release``). With ``Units`` of at most
          m images a record is a unit: each of its images is clipped to the m-th part of every clip norm, so that by the
          triangle inequality all of them together add no more than one record adds otherwise.
        """
        self._record("a sum over all records", share)
        records, groups = self._records, num_groups
        sigma = self._mechanism.step_noise / math.sqrt(share)
        size = sum(term.coordinates(records, groups) for term in terms)
        noise = NoiseSupply(jax.random.fold_in(self._key, len(self.recorded)), size if sigma > 0 else 0)
        made = Release(noise, math.hypot(*(term.length for term in terms)), sigma)
        index = jax.vmap(group)(records) if group else jnp.zeros(len(self._present), jnp.int32)
        place = Place(jnp.where(self._present, index, -1), groups, self._present, self._parts)
        return Sums([term.add(made, records, place) for term in terms], made.std)

    def private_mean(self, name: str, statistic: Statistic) -> None:
        """Adds a mean over all records, such as an accuracy, to the private metrics; nothing is released.

        Args:
          name: name of the metric.
          statistic: function from a record to the scalar whose mean is taken.
        """
        each = jax.vmap(statistic)(self._records).astype(jnp.float32)
        self._note(**{name: jnp.sum(jnp.where(self._present, each, 0.0)) / jnp.sum(self._present)})
