"""The access of full-batch methods: it releases exact sums of statistics of all records, with Gaussian noise.

One ``release`` may have several terms, all of which one record changes. Their joint sensitivity is computed from the
terms; methods do not state it.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.divided_sums import sum_over_devices
from efsgd_jax.privacy.one_shot import NoiseSupply, Release
from efsgd_jax.privacy.row_sums import ExactSum
from efsgd_jax.privacy.stored import number_of, rows_of, sum_over_chunks
from efsgd_jax.privacy.sum_terms import Place, Statistic, Term
from efsgd_jax.privacy.units import Units

if TYPE_CHECKING:
    from efsgd_jax.privacy.full_batch import FullBatchMechanism

PyTree = Any


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
      records: pytree of what the phase reads of all training records, leading axis N; or ``Stored``, if they stay on
        disk; or ``Units`` of either, where each of N units has several images. A statistic is then one of an image, and
        a unit adds a mean over its places.
      key: typed PRNG key of this step, secret and used once.
      mesh: mesh of the devices, each of which adds its part of the records; None if a single device is used.
      shared: arguments of ``Access``.

    Examples:
      >>> from efsgd_jax.privacy import FullBatchMechanism, fresh_key
      >>> access = FullBatchMechanism(100, 5.0).open(jnp.ones((100, 3)), fresh_key(), 0)
      >>> access.dataset_size
      100
    """

    def __init__(
        self,
        mechanism: "FullBatchMechanism",
        records: PyTree,
        key: jax.Array,
        *,
        mesh: Mesh | None = None,
        **shared: Any,
    ):
        super().__init__(**shared)
        self._mechanism, self._key, self._records, self._mesh = mechanism, key, records, mesh
        self._parts = records.most if isinstance(records, Units) else 1
        sizes = number_of(records)
        if sizes != {mechanism.dataset_size}:
            raise UserError(
                f"the mechanism is of N = {mechanism.dataset_size} records, and the arrays have "
                f"{', '.join(map(str, sorted(sizes)))} rows; give all records, and the mechanism their number"
            )
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
        sigma, parts = self._mechanism.step_noise / math.sqrt(share), self._parts
        like = jax.eval_shape(lambda: self._images(rows_of(self._records, jnp.zeros(1, jnp.int32)))[0])
        size = sum(term.coordinates(like, num_groups) for term in terms)
        noise = NoiseSupply(jax.random.fold_in(self._key, len(self.recorded)), size if sigma > 0 else 0)
        made = Release(noise, math.hypot(*(term.length for term in terms)), sigma)

        def totals(records: PyTree, present: jax.Array) -> list[ExactSum]:
            index = jax.vmap(group)(records) if group else jnp.zeros(len(present), jnp.int32)
            place = Place(jnp.where(present, index, -1), num_groups, present, parts)
            return [term.total(made, records, place) for term in terms]

        exact = self._over_all(totals, lambda a, b: [x + y for x, y in zip(a, b, strict=True)])
        count = self._mechanism.dataset_size * parts
        return Sums([term.result(made.noised(x, count)) for term, x in zip(terms, exact, strict=True)], made.std)

    def private_mean(self, name: str, statistic: Statistic) -> None:
        """Adds a mean over all records, such as an accuracy, to the private metrics; nothing is released.

        Args:
          name: name of the metric.
          statistic: function from a record to the scalar whose mean is taken.
        """

        def sums(records: PyTree, present: jax.Array) -> tuple[jax.Array, jax.Array]:
            each = jax.vmap(statistic)(records).astype(jnp.float32)
            return jnp.sum(jnp.where(present, each, 0.0)), jnp.sum(present)

        total, count = self._over_all(sums, lambda a, b: jax.tree.map(jnp.add, a, b))
        self._note(**{name: total / count})

    def _over_all(self, f: Callable[[PyTree, jax.Array], PyTree], add: Callable[[PyTree, PyTree], PyTree]) -> PyTree:
        """``f(images, present)`` of all images, or the sum of what it returns for parts of them."""

        def chunk(some: PyTree, real: jax.Array) -> PyTree:
            images, present = self._images(some)
            return f(images, present & jnp.repeat(real, self._parts))

        if self._mesh is None:
            return sum_over_chunks(chunk, self._records, add)
        return sum_over_devices(chunk, self._records, add, self._mesh)

    def _images(self, records: PyTree) -> tuple[PyTree, jax.Array]:
        """The images of some records one after the other, and which of them are no repetitions."""
        if isinstance(records, Units):
            return records.flat()
        return records, jnp.ones(len(jax.tree.leaves(records)[0]), bool)
