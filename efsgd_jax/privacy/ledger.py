"""The ledger: what a run has spent and when it must stop."""

import math

import dp_accounting

from efsgd_jax.privacy.accounting import COARSE, FINE, Mechanism, epsilon
from efsgd_jax.privacy.calibration import best_fresh_share


class Ledger:
    """Epsilon as a function of the number of steps taken, and the most steps a target epsilon allows.

    It holds no counter of its own: the number of steps is in the training state, so that a run that was killed and
    resumed has spent exactly what an uninterrupted one has (replayed steps draw the same batches and the same
    noise: the same release, not a second one).

    Args:
      mechanism: what a step is.
      target_epsilon: never exceeded; ``inf`` allows everything.
      delta: in (0, 1).
      planned_steps: how many steps are wanted.

    Formal guarantees:
      ``steps`` is the largest number not above ``planned_steps`` with ``spent(steps) <= target_epsilon``.
    """

    def __init__(self, mechanism: Mechanism, target_epsilon: float, delta: float, planned_steps: int):
        self.mechanism, self.target_epsilon, self.delta = mechanism, target_epsilon, delta
        self.planned_steps = planned_steps
        self.fresh_share = 0.5
        if mechanism.feedback == "hidden" and mechanism.noise_multiplier > 0:
            self.fresh_share = best_fresh_share(mechanism, planned_steps, delta)
        self.steps = self._affordable(planned_steps)

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """What ``steps`` steps do to the data."""
        return self.mechanism.event(steps, truncated=truncated, fresh_share=self.fresh_share)

    def spent(self, steps: int, *, grid: float = COARSE) -> float:
        """Epsilon of ``steps`` steps by PLD."""
        if steps == 0:
            return 0.0
        return math.inf if self.mechanism.noise_multiplier == 0 else epsilon(self.event(steps), self.delta, grid=grid)

    def report(self, steps: int) -> dict[str, float]:
        """Epsilon of ``steps`` steps by PLD (the proven number) and by RDP (of the sampler without truncation)."""
        if steps == 0 or self.mechanism.noise_multiplier == 0:
            return {"pld": self.spent(steps), "rdp_untruncated": self.spent(steps)}
        plain = self.event(steps, truncated=False)
        return {
            "pld": self.spent(steps, grid=FINE),
            "rdp_untruncated": epsilon(plain, self.delta, accountant="rdp"),
        }

    def _affordable(self, planned: int) -> int:
        if self.spent(planned) <= self.target_epsilon:
            return planned
        low, high = 0, planned  # spent(low) <= target < spent(high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.spent(middle) <= self.target_epsilon else (low, middle)
        return low
