"""The mechanism of full-batch releases: noisy sums over all records, such as the statistics of a mixture model."""

import math
import warnings
from typing import Any, NamedTuple

import dp_accounting
import jax

from efsgd_jax.privacy.accounting import FINE, Accountant, epsilon, gaussian_event
from efsgd_jax.privacy.keys import as_typed_key, key_of_init, warn_of_debugging_key
from efsgd_jax.privacy.mechanism import ZERO_OUT, Description
from efsgd_jax.privacy.sum_access import SumAccess


class FullBatchMechanism(NamedTuple):
    """Sums of clipped statistics of all records, with Gaussian noise.

    Attributes:
      dataset_size: N, the number of records, public.
      noise_multiplier: sigma. All phases of a budget together cost as much as one Gaussian release with this sigma. 0
        means no noise and no guarantee.
      share: the part of that budget, in 1/sigma^2, for all steps of this phase.
      steps: the number of steps of this phase, among which the share is divided equally.

    Examples:
      >>> mechanism = FullBatchMechanism(dataset_size=60_000, noise_multiplier=1.0)
      >>> round(mechanism.epsilon(steps=1, delta=1e-5), 2)
      4.38
    """

    dataset_size: int
    noise_multiplier: float
    share: float = 1.0
    steps: int = 1

    @property
    def step_noise(self) -> float:
        """The noise multiplier of one step's releases."""
        return self.noise_multiplier * math.sqrt(self.steps / self.share)

    @property
    def proven(self) -> bool:
        return True

    @property
    def neighbouring_relation(self) -> dp_accounting.NeighboringRelation:
        return dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE

    @property
    def overflow_share(self) -> float:
        return 0.0

    def failure(self, steps: int) -> float:
        del steps
        return 0.0

    def with_noise(self, noise_multiplier: float) -> "FullBatchMechanism":
        return self._replace(noise_multiplier=noise_multiplier)

    def prepared(self, steps: int, delta: float) -> "FullBatchMechanism":
        del steps, delta
        return self

    def arrange(self, key: jax.Array, records: Any) -> Any:
        del key
        return records

    def open(self, records: Any, key: jax.Array, step: jax.Array, **shared: Any) -> SumAccess:
        """The access of one step; see ``Mechanism.open``.

        Raises:
          TypeError: ``key`` is no PRNG key.
          UserError: the records are not N.
        """
        del step
        key = as_typed_key(key)
        warn_of_debugging_key(key, "FullBatchMechanism.open")
        if self.noise_multiplier == 0 and not isinstance(key, jax.core.Tracer):  # not in a run, which says so itself
            warnings.warn(
                "the noise multiplier is 0: what is released has no noise and no guarantee. calibrate_plan returns the "
                "mechanism with noise.",
                stacklevel=2,
            )
        return SumAccess(self, records, key_of_init(key), **shared)

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps, each of which is one Gaussian release.

        Formal guarantees:
          The neighbouring relation is zero-out of one record. The joint l2 norm of a record's statistics is at most the
          sensitivity to which the noise is scaled. Releases may depend on those before (adaptive composition).
        """
        del truncated
        if self.noise_multiplier == 0:
            return dp_accounting.NonPrivateDpEvent()
        return gaussian_event(self.step_noise, steps)

    def epsilon(
        self, steps: int, delta: float, *, accountant: Accountant = "pld", truncated: bool = True, grid: float = FINE
    ) -> float:
        del truncated
        if steps == 0:
            return 0.0
        if self.noise_multiplier == 0:
            return math.inf
        return epsilon(self.event(steps), delta, accountant=accountant, grid=grid)

    def describe(self, steps: int, delta: float, epsilon_spent: float) -> Description:
        del steps, delta, epsilon_spent
        return Description(
            summary="sums of clipped statistics of all images plus Gaussian noise, once in each step",
            sampler="none: all records take part",
            neighbouring_relation=ZERO_OUT,
            sensitivity=1.0,  # in units of the joint sensitivity of a step's sums, which follows from their clip norms
            parameters=self._asdict(),
        )
