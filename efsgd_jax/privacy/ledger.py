"""The ledger: the epsilon that a run has spent, and the number of steps after which it must stop."""

import math
from collections.abc import Collection
from typing import Generic, TypeVar

import dp_accounting

from efsgd_jax.privacy.accounting import COARSE, FINE
from efsgd_jax.privacy.calibration import calibrate_steps
from efsgd_jax.privacy.mechanism import Accounted

A = TypeVar("A", bound=Accounted)
# Largest number of blocks of steps for which epsilon is computed; each computation takes about a tenth of a second.
MAX_BLOCKS = 50


class Ledger(Generic[A]):
    """Epsilon as a function of the number of steps taken, and the largest number of steps that a target epsilon allows.

    The ledger has no counter: the number of steps is in the training state, so that a run that was killed and resumed
    has spent exactly what an uninterrupted one has (repeated steps sample the same batches and the same noise, which is
    the same release and not a second one).

    Args:
      mechanism: the mechanism of a step, or all phases of a run (``plan.Composition``), whose steps are counted
        consecutively.
      target_epsilon: the epsilon that is never exceeded; ``inf`` allows any number of steps.
      delta: the delta of the guarantee, in (0, 1).
      planned_steps: the number of steps that the run is to take.

    Attributes:
      steps: the number of steps that the run may take.

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
        """The event of ``steps`` steps; see ``Accounted.event``."""
        return self.mechanism.event(steps, truncated=truncated)

    def spent(self, steps: int, *, grid: float = COARSE) -> float:
        """Epsilon of ``steps`` steps by PLD; results are cached."""
        if (steps, grid) not in self._known:
            self._known[steps, grid] = self.mechanism.epsilon(steps, self.delta, grid=grid)
        return self._known[steps, grid]

    def blocks(self, every: int, start: int = 0, stops: Collection[int] = ()) -> list[tuple[int, float]]:
        """The ends of blocks of steps and the epsilon spent by then; a run writes its ledger before each block.

        All epsilons are computed before the first step, and that of the last step first. It needs the most memory, so
        that a run without enough memory fails before its first step.

        Args:
          every: number of steps in a block. Blocks end at its multiples and at the last step. If these were more than
            about ``MAX_BLOCKS`` blocks, the blocks are longer by a whole factor.
          start: number of steps that were taken before; blocks that end by then are left out.
          stops: further ends of blocks: those of the run's phases, so that a phase that never starts costs nothing.

        Returns:
          Pairs of the number of steps at the end of a block and the epsilon spent by then, in order.
        """
        length = every * max(1, math.ceil(self.steps / every / MAX_BLOCKS))
        spent = self.spent(self.steps, grid=FINE)  # for the report, and no earlier step has spent more
        ends = sorted({*range(length, self.steps, length), *stops, self.steps}, reverse=True)
        ends = [end for end in ends if end <= self.steps]
        return [(end, min(self.spent(end), spent)) for end in ends if end > start][::-1]

    def rdp_untruncated(self, steps: int) -> float:
        """Epsilon of ``steps`` steps by RDP, for sampling without truncation: RDP does not support truncation."""
        return self.mechanism.epsilon(steps, self.delta, accountant="rdp", truncated=False)

    def report(self, steps: int) -> dict[str, float]:
        """Epsilon of ``steps`` steps by PLD (the claim of the run), and by RDP for sampling without truncation."""
        return {"pld": self.spent(steps, grid=FINE), "rdp_untruncated": self.rdp_untruncated(steps)}
