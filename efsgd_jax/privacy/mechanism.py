"""What a mechanism is to the ledger, the calibration and the reports: a protocol, so that a method brings its own."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, Self

import dp_accounting

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


class Mechanism(Protocol):
    """One kind of noisy step on private records. Implementations are NamedTuples, so that they are values.

    ``DpSgdMechanism`` (clipped gradients of Poisson batches) and ``FullBatchMechanism`` (sums over all records) are in
    this package; a method may bring another one.
    """

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

    def with_noise(self, noise_multiplier: float) -> Self:
        """The same mechanism with other noise."""

    def prepared(self, steps: int, delta: float) -> Self:
        """The same mechanism with what is best chosen for that many steps, without data: a split of the noise, say."""

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps; without ``truncated`` of the plain sampler, which RDP also supports."""

    def epsilon(
        self, steps: int, delta: float, *, accountant: Accountant = "pld", truncated: bool = True, grid: float = FINE
    ) -> float:
        """Epsilon of ``steps`` steps at ``delta``; ``inf`` where there is none."""

    def describe(self, steps: int, delta: float, epsilon_spent: float) -> Description:
        """What reports say of ``steps`` steps that spent ``epsilon_spent``."""
