"""The access of full-batch methods: sums of statistics of all records leave it, exact and with Gaussian noise.

One ``release`` may have several terms, of which one record moves all: their joint sensitivity is computed from the
terms, and no method states it.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.one_shot import FACTOR_BITS, NoiseSupply, Release, Rows, whole_rows

if TYPE_CHECKING:
    from efsgd_jax.privacy.full_batch import FullBatchMechanism

PyTree = Any
Statistic = Callable[[Any], jax.Array]  # of one record


class Term(Protocol):
    """One kind of sum in a release."""

    @property
    def length(self) -> float:
        """L2 norm of what one record adds, at most."""

    def coordinates(self, records: PyTree, groups: int) -> int:
        """How many numbers the sum has."""

    def add(self, release: Release, records: PyTree, group: jax.Array, groups: int) -> Any:
        """The noisy sum."""


class VectorSum(NamedTuple):
    """``sum_i clip(v_i, C)`` in each group, and with ``count_weight`` w, ``w`` times the number of its records.

    Attributes:
      of: record -> float ``[D]``.
      l2_norm_clip: C.
      count_weight: w, in the unit of the vectors; 0 for no counts.

    The sum is float32 ``[G, D]``, with counts a pair of that and ``[G]``, which are divided by w.

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

    def add(self, release: Release, records: PyTree, group: jax.Array, groups: int) -> Any:
        whole = release.rows(jax.vmap(self.of)(records), self.l2_norm_clip)
        if not self.count_weight:
            return release.sums(whole, group, groups)
        count = release.constant(self.count_weight, len(group), whole)
        both = whole._replace(values=jnp.concatenate([whole.values, count.values], axis=1), bits=count.bits)
        sums = release.sums(both, group, groups)
        return sums[:, :-1], sums[:, -1] / self.count_weight


class SquareSum(NamedTuple):
    """``sum_i r_i r_i^T`` in each group, of ``r_i = clip(v_i, C)``: float32 ``[G, D, D]``.

    Attributes:
      of: record -> float ``[D]``.
      l2_norm_clip: C.
      weight: of the matrix within the release, whose other terms share the noise.

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

    def add(self, release: Release, records: PyTree, group: jax.Array, groups: int) -> jax.Array:
        rows = release.factors(jax.vmap(self.of)(records), self.l2_norm_clip, self.weight)
        return release.squares(rows, group, groups, self.weight) / self.weight


class OuterSum(NamedTuple):
    """``sum_i a_i b_i^T`` of all records, float32 ``[P, Q]``, of outer products of norm C at most.

    Attributes:
      left: record -> a in whole units of ``longest / 2^8``, as ``whole_factor`` makes it once for all steps; one that
        is not whole, or longer, counts as zero.
      right: record -> float ``[Q]``, clipped to ``C / longest``.
      longest: of a, in its own unit.
      l2_norm_clip: C.

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

    def add(self, release: Release, records: PyTree, group: jax.Array, groups: int) -> jax.Array:
        del group, groups
        left = _checked(jax.vmap(self.left)(records), self.longest)
        right = release.partners(jax.vmap(self.right)(records), left, self.l2_norm_clip / self.longest, self.longest)
        return release.products(left, right)


def whole_factor(vector: jax.Array, longest: float) -> jax.Array:
    """``[P]``, clipped to ``longest`` and rounded to whole units of ``longest / 2^8``: float32."""
    return whole_rows(vector[None], longest, longest / 2**FACTOR_BITS, FACTOR_BITS).values[0]


def _checked(values: jax.Array, longest: float) -> Rows:
    whole = jnp.all(values == jnp.round(values), axis=1, keepdims=True)
    limit = 2.0**FACTOR_BITS
    squares = jnp.square(jnp.clip(values, -limit - 1, limit + 1).astype(jnp.int32))
    fits = jnp.sum(squares, axis=1, keepdims=True) <= 4**FACTOR_BITS
    return Rows(jnp.where(whole & fits, values, 0.0), FACTOR_BITS, longest / 2**FACTOR_BITS)


def _width(statistic: Statistic, records: PyTree) -> int:
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), records)
    return jax.eval_shape(statistic, one).shape[0]


class Sums(NamedTuple):
    """What a release gave: one ``values`` for each term, in order, and the ``std`` of the noise on them."""

    values: list[Any]
    std: float


class SumAccess(Access):
    """Opened by ``FullBatchMechanism.open``.

    Args:
      mechanism: its noise.
      records: pytree of what the phase reads of all training records, leading axis N.
      key: typed PRNG key of this step, secret and used once.
      shared: see ``Access``.
    """

    def __init__(self, mechanism: "FullBatchMechanism", records: PyTree, key: jax.Array, **shared: Any):
        super().__init__(**shared)
        self._mechanism, self._records, self._key = mechanism, records, key
        self._note(batch_size=jnp.asarray(mechanism.dataset_size, jnp.float32))

    @property
    def dataset_size(self) -> int:
        """N, public."""
        return self._mechanism.dataset_size

    def release(
        self, terms: Sequence[Term], *, group: Statistic | None = None, num_groups: int = 1, share: float = 1.0
    ) -> Sums:
        """Sums of statistics of all records, with noise for what one record adds to all terms together.

        Args:
          terms: ``VectorSum``, ``SquareSum``, ``OuterSum``.
          group: record -> int, the group that the record's statistics are added to; one outside of them adds to none.
          num_groups: G.
          share: the part of the step's 1/sigma^2 that pays for this release.

        Raises:
          UndeclaredReleaseError: the shares of a step are more than 1, or the call is in a loop.

        Formal guarantees:
          Every statistic is a function of one record and of what was released before; it is clipped here. One
          ``GaussianDpEvent`` with the mechanism's ``step_noise / sqrt(share)`` for blanking one record, of exact sums
          (``one_shot.Release``).
        """
        self._record("a sum over all records", share)
        records, groups = self._records, num_groups
        sigma = self._mechanism.step_noise / math.sqrt(share)
        size = sum(term.coordinates(records, groups) for term in terms)
        noise = NoiseSupply(jax.random.fold_in(self._key, len(self.recorded)), size if sigma > 0 else 0)
        made = Release(noise, math.hypot(*(term.length for term in terms)), sigma)
        index = jax.vmap(group)(records) if group else jnp.zeros(self._mechanism.dataset_size, jnp.int32)
        return Sums([term.add(made, records, index, groups) for term in terms], made.std)

    def private_mean(self, name: str, statistic: Statistic) -> None:
        """Notes a mean over all records, such as an accuracy, among the private metrics; nothing is released."""
        self._note(**{name: jnp.mean(jax.vmap(statistic)(self._records).astype(jnp.float32))})
