"""The ledger: what a run has spent and when it must stop."""

import math
from collections.abc import Collection
from typing import Generic, TypeVar

import dp_accounting

from efsgd_jax.privacy.accounting import COARSE, FINE
from efsgd_jax.privacy.calibration import calibrate_steps
from efsgd_jax.privacy.mechanism import Accounted

A = TypeVar("A", bound=Accounted)
# Into how many blocks of steps a run is cut at most, whose epsilons are computed: each takes a tenth of a second.
MAX_BLOCKS = 50


class Ledger(Generic[A]):
    """Epsilon as a function of the number of steps taken, and the most steps a target epsilon allows.

    It holds no counter of its own: the number of steps is in the training state, so that a run that was killed and
    resumed has spent exactly what an uninterrupted one has (replayed steps draw the same batches and the same
    noise: the same release, not a second one).

    Args:
      mechanism: what a step is, or all phases of a run (``plan.Composition``), whose steps are counted through.
      target_epsilon: never exceeded; ``inf`` allows everything.
      delta: in (0, 1).
      planned_steps: how many steps are wanted.

    Formal guarantees:
      ``steps`` is the largest number not above ``planned_steps`` with ``spent(steps) <= target_epsilon``.

    Examples:
      >>> from efsgd_jax.privacy import FullBatchMechanism
      >>> Ledger(FullBatchMechanism(1000, 1.0), target_epsilon=10.0, delta=1e-5, planned_steps=100).steps
      4
    """

    def __init__(self, mechanism: A, target_epsilon: float, delta: float, planned_steps: int):
        self.mechanism: A = mechanism.prepared(planned_steps, delta)
        self.target_epsilon, self.delta, self.planned_steps = target_epsilon, delta, planned_steps
        self._known: dict[tuple[int, float], float] = {}
        self.steps = calibrate_steps(self.spent, target_epsilon, planned_steps)

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """What ``steps`` steps do to the data."""
        return self.mechanism.event(steps, truncated=truncated)

    def spent(self, steps: int, *, grid: float = COARSE) -> float:
        """Epsilon of ``steps`` steps by PLD, computed once."""
        if (steps, grid) not in self._known:
            self._known[steps, grid] = self.mechanism.epsilon(steps, self.delta, grid=grid)
        return self._known[steps, grid]

    def blocks(self, every: int, start: int = 0, stops: Collection[int] = ()) -> list[tuple[int, float]]:
        """Where blocks of steps end, and what is spent by then, for a run that writes its ledger ahead of each block.

        All is computed before the first step, and the largest first: the memory that it takes does not grow with the
        run, and if it is not there, the run ends before it has begun.

        Args:
          every: steps; blocks end at multiples of it, or of a multiple of it where there would be more than
            ``MAX_BLOCKS``, and at the last step.
          start: steps that were taken before.
          stops: further ends: those of a run's phases, so that one that never starts charges nothing.
        """
        length = every * max(1, math.ceil(self.steps / every / MAX_BLOCKS))
        self.spent(self.steps, grid=FINE)  # for the report
        ends = sorted({*range(length, self.steps, length), *stops, self.steps}, reverse=True)
        ends = [end for end in ends if end <= self.steps]
        return [(end, self.spent(end)) for end in ends if end > start][::-1]

    def rdp_untruncated(self, steps: int) -> float:
        """Epsilon of ``steps`` steps by RDP, which does not know truncation: of the sampler without it."""
        return self.mechanism.epsilon(steps, self.delta, accountant="rdp", truncated=False)

    def report(self, steps: int) -> dict[str, float]:
        """Epsilon of ``steps`` steps by PLD (the proven number) and by RDP (of the sampler without truncation)."""
        return {"pld": self.spent(steps, grid=FINE), "rdp_untruncated": self.rdp_untruncated(steps)}
