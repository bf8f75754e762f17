"""What a mechanism is, as a protocol: to the ledger and the calibration, to a phase of training, and to reports."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, Self

import dp_accounting
import jax

from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.accounting import FINE, Accountant

# Neighbouring relations, in the words of reports.
ZERO_OUT = (
    "zero-out one: one image with its label is replaced by a blank record that contributes nothing; the number of "
    "records N is public"
)
REPLACE = (
    "replace one: one image with its label is replaced by any other or by a blank record; the number of records N is "
    "public"
)


class Description(NamedTuple):
    """What a report says of a mechanism.

    Attributes:
      summary: what is released, in one sentence.
      sampler: how the records of a step are chosen.
      neighbouring_relation: ``ZERO_OUT`` or ``REPLACE``.
      sensitivity: l2 norm; how far one record moves what is released before the noise.
      parameters: of the mechanism, as JSON has them; ``type(mechanism)(**parameters)`` is the mechanism.
      no_guarantee: why there is none, although there is noise; "" if there is one.
      accountings: epsilon by accountings of which only one is a proof, by name; empty for most mechanisms.
      accounting_meanings: what each of them is, by the same names.
    """

    summary: str
    sampler: str
    neighbouring_relation: str
    sensitivity: float
    parameters: dict[str, Any]
    no_guarantee: str = ""
    accountings: Mapping[str, float] = {}
    accounting_meanings: Mapping[str, str] = {}


class Accounted(Protocol):
    """What the ledger and the calibration ask: of one mechanism, or of all phases of a run (``plan.Composition``)."""

    @property
    def dataset_size(self) -> int:
        """N, public."""

    @property
    def noise_multiplier(self) -> float:
        """sigma; 0 for no noise and no guarantee."""

    @property
    def proven(self) -> bool:
        """Whether ``event`` exists."""

    @property
    def neighbouring_relation(self) -> dp_accounting.NeighboringRelation:
        """Of the accountant."""

    @property
    def overflow_share(self) -> float:
        """The part of delta that pays for batches that overflow."""

    def failure(self, steps: int) -> float:
        """Chance that one of ``steps`` steps is not what ``event`` says, to be paid for by delta."""

    def with_noise(self, noise_multiplier: float) -> Self:
        """The same with other noise."""

    def prepared(self, steps: int, delta: float) -> Self:
        """The same with what is best chosen for that many steps, without data: a split of the noise, say."""

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps; without ``truncated`` of the plain sampler, which RDP also supports."""

    def epsilon(
        self, steps: int, delta: float, *, accountant: Accountant = "pld", truncated: bool = True, grid: float = FINE
    ) -> float:
        """Epsilon of ``steps`` steps at ``delta``; ``inf`` where there is none."""


class Mechanism(Accounted, Protocol):
    """One kind of noisy step on private records. Implementations are NamedTuples, so that they are values.

    ``DpSgdMechanism`` (clipped gradients of Poisson batches) and ``FullBatchMechanism`` (sums over all records) are in
    this package; a method may bring another one. What a mechanism charges for (``event``) and what its steps can read
    and release (``open``) are in one place, so that they can be compared.
    """

    def arrange(self, key: jax.Array, records: Any) -> Any:
        """The training records (a pytree, leading axis N) as ``open`` wants them; once in a phase, with its own key."""

    def open(self, records: Any, key: jax.Array, step: jax.Array, **shared: Any) -> Access:
        """The access of one step, within the compiled program.

        Args:
          records: from ``arrange``.
          key: typed PRNG key of this step, secret and used once: of draws, noise and losses.
          step: int, counted from 0 in each phase; of public schedules.
          shared: ``mesh`` of devices, and what ``Access`` takes.
        """

    def describe(self, steps: int, delta: float, epsilon_spent: float) -> Description:
        """What reports say of ``steps`` steps that spent ``epsilon_spent``."""
