"""A game on the releases of private SMOTE: a noisy mean, and noisy steps of k-means, which divide one budget.

The canary is the only row, and as far from the mean as a row can be, so that it adds to each release as much as the
clip norms let it; in runs without it, its place is blank. The adversary sees everything that is released.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from efsgd_jax.audit.scores import likelihood_ratio
from efsgd_jax.privacy import Composition, PlannedPhase
from efsgd_jax.protect.smote_centres import COUNT_LENGTH, Record, planned, release_centres

# Number of rows, steps of k-means, and a clip norm that is small enough for the canary to reach it in every step: with
# so many rows the noisy mean stays near 1/2, and the canary is at 1.
ROWS, STEPS, CLIP = 64, 3, 0.1
Phases = tuple[PlannedPhase, ...]


def as_accounted(phases: Phases) -> Phases:
    """The phases as the library opens them: those that are accounted for."""
    return phases


def each_with_the_whole(phases: Phases) -> Phases:
    """The fault: each release is given the noise of the only one, so that the shares add up to more than 1."""

    def whole(phase: PlannedPhase) -> PlannedPhase:
        assert phase.mechanism is not None
        return phase._replace(mechanism=phase.mechanism._replace(share=1.0, steps=1))  # type: ignore[attr-defined]

    return tuple(map(whole, phases))


@dataclasses.dataclass(frozen=True)
class CentresGame:
    """A game on all releases of one fit, with one label and one centre.

    Attributes:
      name: name of the game, for the table.
      noise_multiplier: sigma of the whole fit.
      opened: function from the phases that are accounted for to those that are opened; the identity unless a fault is
        injected.
      tight: whether the claimed epsilon is exact for this adversary.
    """

    name: str
    noise_multiplier: float
    opened: Callable[[Phases], Phases] = as_accounted
    tight: bool = True

    @property
    def _phases(self) -> Phases:
        phases = planned(ROWS, STEPS)
        return Composition(phases, solving=phases[0].budget.name).with_noise(self.noise_multiplier).phases

    def claimed(self, delta: float) -> float:
        """The upper bound under attack: the epsilon of the phases together, as ``fit_centres`` computes it."""
        whole = Composition(self._phases)
        return whole.epsilon(whole.total_steps, delta)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The attack's score of one run: the log likelihood ratio of all its releases."""
        canary = present & (jnp.arange(ROWS) == 0)
        records = Record(jnp.where(canary, 1.0, 0.5)[:, None], jnp.where(canary, 0, -1))
        found = release_centres(self.opened(self._phases), records, jnp.zeros((1, 1, 1)), key, l2_norm_clip=CLIP)
        weight = COUNT_LENGTH * CLIP
        first, others = found.stds[0], found.stds[1:]
        seen = [found.total / first, found.sums[:, 0, 0] / others, found.counts[:, 0] * weight / others]
        change = [0.5 / first[None], CLIP / others, weight / others]
        return likelihood_ratio(jnp.concatenate(seen)[None], jnp.concatenate(change)[None], 1.0)


def centre_games() -> list[CentresGame]:
    """The games on the correct code, in which no violation may be found."""
    return [CentresGame("a mean of rows and three steps of k-means", 1.0)]
