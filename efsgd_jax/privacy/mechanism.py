"""The protocol of mechanisms, as the ledger, the calibration, the phases of training and the reports use them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, Self

import dp_accounting
import jax

from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.accounting import FINE, Accountant

# Units of privacy, as reports describe them: what one record is.
IMAGE = "one image with its label"
PERSON = "one person with all their images"
# Neighbouring relations, as reports describe them if the unit is ``IMAGE``.
ZERO_OUT = (
    f"zero-out one: {IMAGE} is replaced by a blank record that contributes nothing; the number of records N is public"
)
# The unit if only a region of each image is private, and its relation. Neither whole images nor persons are protected.
REGION = "the pixels of one image inside the region"
BLANK_REGION = (
    f"zero-out one region: {REGION} are replaced by an interpolation of those around it; all other pixels, the labels "
    "and the number of records N are public"
)
REPLACE = f"replace one: {IMAGE} is replaced by any other or by a blank record; the number of records N is public"


class Description(NamedTuple):
    """The description of a mechanism in a report.

    Attributes:
      summary: what is released, in one sentence.
      sampler: how the records of a step are chosen.
      neighbouring_relation: ``ZERO_OUT`` or ``REPLACE``.
      sensitivity: the largest l2 norm by which one record can change the released value before noise is added.
      parameters: parameters of the mechanism, as JSON values; ``type(mechanism)(**parameters)`` is the mechanism.
      no_guarantee: why there is no guarantee although there is noise; "" if there is a guarantee.
      accountings: epsilon by different accountings, by name, of which only one is a proof; empty for most mechanisms.
      accounting_meanings: an explanation of each accounting, by the same names.
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
    """The part of the protocol for the ledger and the calibration: one mechanism, or all phases (``Composition``)."""

    @property
    def dataset_size(self) -> int:
        """N, the number of records, public."""

    @property
    def noise_multiplier(self) -> float:
        """sigma, the standard deviation of the noise over the sensitivity; 0 means no noise and no guarantee."""

    @property
    def proven(self) -> bool:
        """Whether there is a proven event, which ``event`` returns."""

    @property
    def neighbouring_relation(self) -> dp_accounting.NeighboringRelation:
        """The neighbouring relation with which the accountant computes epsilon."""

    @property
    def overflow_share(self) -> float:
        """The part of delta that is reserved for batches that overflow."""

    def failure(self, steps: int) -> float:
        """A bound on the probability that any of ``steps`` steps is not as ``event`` describes it; charged to delta."""

    def with_noise(self, noise_multiplier: float) -> Self:
        """A copy with another noise multiplier."""

    def prepared(self, steps: int, delta: float) -> Self:
        """A copy with parameters, such as a split of the noise, chosen for these steps and delta, without data."""

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps, for the accountant.

        Args:
          steps: number of steps.
          truncated: whether to account for the truncation of batches at their capacity; if not, the event is that of
            plain Poisson sampling, which RDP also supports.
        """

    def epsilon(
        self, steps: int, delta: float, *, accountant: Accountant = "pld", truncated: bool = True, grid: float = FINE
    ) -> float:
        """Epsilon of ``steps`` steps at ``delta``; ``inf`` if there is no finite bound.

        Args:
          steps: number of steps.
          delta: the delta of the guarantee, in (0, 1).
          accountant: ``"pld"`` (tight) or ``"rdp"``.
          truncated: see ``event``.
          grid: for PLD, the spacing of the grid of privacy losses; see ``accounting.epsilon``.
        """


class Mechanism(Accounted, Protocol):
    """One kind of noisy step on private records; implementations are NamedTuples, so that they compare by value.

    ``DpSgdMechanism`` (clipped gradients of Poisson batches) and ``FullBatchMechanism`` (sums over all records) are in
    this package; a method may define another one. One class defines both the event that is accounted for (``event``)
    and what steps can read and release (``open``), so that the two can be compared.
    """

    def arrange(self, key: jax.Array, records: Any) -> Any:
        """Arranges the training records (a pytree, leading axis N) for ``open``; called once in a phase.

        Args:
          key: typed PRNG key for random arrangements, secret and used once.
          records: the training records.
        """

    def open(self, records: Any, key: jax.Array, step: jax.Array, **shared: Any) -> Access:
        """Returns the access of one step; it is called within the compiled program.

        Args:
          records: the result of ``arrange``.
          key: typed PRNG key of this step, secret and used once, for sampling, noise and losses.
          step: int, number of the step, counted from 0 in each phase; used by public schedules.
          shared: ``mesh``, a mesh of devices, and the arguments of ``Access``.
        """

    def describe(self, steps: int, delta: float, epsilon_spent: float) -> Description:
        """The description, for reports, of ``steps`` steps that spent ``epsilon_spent`` at ``delta``."""
