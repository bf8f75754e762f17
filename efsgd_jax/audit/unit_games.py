"""Games in which the unit is a person with several images: the canary is a person, with or without all their images."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.audit.scores import likelihood_ratio
from efsgd_jax.privacy import DpSgdMechanism, Ledger, VectorSum, gaussian_event
from efsgd_jax.privacy import epsilon as epsilon_of
from efsgd_jax.privacy.accounting import FINE
from efsgd_jax.privacy.full_batch import FullBatchMechanism
from efsgd_jax.privacy.gradient_access import GradientAccess
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.privacy.units import Units

PyTree = Any
# Number of persons, and of images of each.
PERSONS, IMAGES = 4, 5


def by_person(units: Units) -> PyTree:
    """The records as a run has them."""
    return units


def by_image(units: Units) -> PyTree:
    """The fault: each image is a record of its own, as in a run that does not know of persons."""
    return units.flat()[0]


@dataclasses.dataclass(frozen=True)
class UnitGame:
    """A game of one step with all records, on a gradient or on a sum; in runs without the canary its images are zeros.

    Attributes:
      name: name of the game, for the table.
      noise_multiplier: sigma.
      sums: whether the release is a sum of statistics; if not, it is a gradient.
      records: function from the ``Units`` to the records that the mechanism reads; ``by_person`` unless a fault is
        injected.
      tight: whether the claimed epsilon is exact for this adversary.
    """

    name: str
    noise_multiplier: float
    sums: bool = False
    records: Callable[[Units], PyTree] = by_person
    tight: bool = True

    def claimed(self, delta: float) -> float:
        """The upper bound under attack: the accountant's epsilon for one person."""
        if self.sums:
            return epsilon_of(gaussian_event(self.noise_multiplier), delta)
        mechanism = DpSgdMechanism(PERSONS, 1.0, PERSONS, self.noise_multiplier)
        return Ledger(mechanism, math.inf, delta, 1).spent(1, grid=FINE)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The attack's score of one run: the log likelihood ratio of its release."""
        longer = jnp.where(present, 10.0, 0.0)  # in clip norms; of each of the canary's images
        vectors = jnp.zeros((PERSONS, IMAGES, 1)).at[0].set(longer)
        records = self.records(Units(vectors, jnp.ones((PERSONS, IMAGES), bool)))
        count = len(jax.tree.leaves(records)[0])  # the fault has more records, and the same noise
        seen: jax.Array
        if self.sums:
            sums = SumAccess(FullBatchMechanism(count, self.noise_multiplier), records, key)
            (seen,), _ = sums.release([VectorSum(lambda v: v, 1.0)])
        else:
            access = GradientAccess(DpSgdMechanism(count, 1.0, count, self.noise_multiplier), records, key)
            mean, _ = access.clipped_gradient(lambda w, v, key: (jnp.vdot(w, v), {}), jnp.zeros(1), ())
            seen = mean[None] * count
        scaled = seen / self.noise_multiplier
        return likelihood_ratio(scaled, jnp.full((1, 1), 1 / self.noise_multiplier), 1.0)


def unit_games() -> list[UnitGame]:
    """The games on the correct code, in which no violation may be found."""
    return [UnitGame("a gradient of persons", 1.0), UnitGame("a sum over persons", 1.0, sums=True)]
