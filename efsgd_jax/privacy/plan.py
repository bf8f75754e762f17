"""The phases of a run for the accountant: their mechanisms, their steps, and how they divide one budget.

A run may have several phases that read private data, one after the other, such as a full-batch release and then DP-SGD.
Their events are composed, and steps are counted consecutively through all phases. ``calibrate_plan`` solves for the
noise of all phases.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import dp_accounting

from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy.accounting import COARSE, FINE, Accountant, epsilon_with_failure
from efsgd_jax.privacy.calibration import calibrate_mechanism
from efsgd_jax.privacy.checks import check_delta, whole_number
from efsgd_jax.privacy.mechanism import Mechanism


class Budget(NamedTuple):
    """A part of the target epsilon; one noise multiplier is solved for it, which all phases of the budget get.

    Attributes:
      name: name of the budget; phases whose budgets have the same name share it.
      share: the part of the target epsilon; the shares of all budgets add up to 1. When the phases of the first k
        budgets have ended, the run has spent at most the first k shares together.

    Examples:
      >>> Budget("mixture", 0.4)
      Budget(name='mixture', share=0.4)
    """

    name: str = "training"
    share: float = 1.0


class PlannedPhase(NamedTuple):
    """The plan of one phase, which is made before any data is read.

    Attributes:
      name: name of the phase, which progress lines and the report show.
      mechanism: the mechanism of each step; None for post-processing, which costs nothing.
      steps: number of steps.
      budget: the budget to which the phase belongs.

    Examples:
      >>> from efsgd_jax.privacy import FullBatchMechanism
      >>> PlannedPhase("sums", FullBatchMechanism(1000, 0.0), steps=1).budget.share
      1.0
    """

    name: str
    mechanism: Mechanism | None
    steps: int
    budget: Budget = Budget()


class Composition(NamedTuple):
    """All phases as one mechanism, for the ledger and the calibration: its steps are those of the phases, in order.

    Attributes:
      phases: the phases of the run; the steps of phases without a mechanism are not counted.
      solving: name of the budget whose noise multiplier ``with_noise`` sets; "" for none.

    Examples:
      >>> from efsgd_jax.privacy import DpSgdMechanism, FullBatchMechanism
      >>> once = PlannedPhase("mixture", FullBatchMechanism(1000, 2.0), 1)
      >>> then = PlannedPhase("training", DpSgdMechanism(1000, 0.1, 200, 1.5), 50)
      >>> both = Composition((once, then))
      >>> both.total_steps, both.epsilon(1, 1e-5) < both.epsilon(51, 1e-5)
      (51, True)
    """

    phases: tuple[PlannedPhase, ...]
    solving: str = ""

    @property
    def private(self) -> list[tuple[PlannedPhase, Mechanism]]:
        """The phases that read private data, with their mechanisms."""
        return [(p, p.mechanism) for p in self.phases if p.mechanism is not None]

    @property
    def total_steps(self) -> int:
        return sum(p.steps for p, _ in self.private)

    @property
    def dataset_size(self) -> int:
        (size,) = {m.dataset_size for _, m in self.private}
        return size

    @property
    def noise_multiplier(self) -> float:
        """The noise multiplier of the first private phase; 0 if any private phase has no noise.

        While a budget is being solved for, only the phases of that budget count.
        """
        noise = [m.noise_multiplier for p, m in self.private if not self.solving or p.budget.name == self.solving]
        return 0.0 if min(noise) == 0 else noise[0]

    @property
    def proven(self) -> bool:
        return all(m.proven for _, m in self.private)

    @property
    def neighbouring_relation(self) -> dp_accounting.NeighboringRelation:
        """The neighbouring relation that all private phases share.

        Raises:
          ValueError: they have different relations, whose events do not compose.
        """
        relations = {m.neighbouring_relation for _, m in self.private}
        if len(relations) > 1:
            raise ValueError("phases under different neighbouring relations do not compose.")
        return relations.pop()

    @property
    def overflow_share(self) -> float:
        """The part of delta that is reserved for batches that overflow, in all phases together."""
        return math.fsum(m.overflow_share for _, m in self.private)

    def taken(self, steps: int) -> list[tuple[PlannedPhase, Mechanism, int]]:
        """The private phases that have begun after ``steps`` steps, with the number of steps taken of each.

        Raises:
          UserError: ``steps`` is no whole number, or more than all phases have: what more steps cost is not known.
        """
        steps = whole_number(steps)
        if steps > self.total_steps:
            planned = ", ".join(f"{p.name} {p.steps}" for p, _ in self.private)
            raise UserError(
                f"{steps} steps were taken, and the phases have {self.total_steps} ({planned}); plan a phase with as "
                "many steps as were taken in it"
            )
        found = []
        for phase, mechanism in self.private:
            here = min(steps, phase.steps)
            if here:
                found.append((phase, mechanism, here))
            steps -= here
        return found

    def failure(self, steps: int) -> float:
        """A bound on the probability that any of the first ``steps`` steps is not as ``event`` describes it."""
        return math.fsum(m.failure(count) for _, m, count in self.taken(steps))

    def with_noise(self, noise_multiplier: float) -> "Composition":
        """A copy in which all phases of the budget ``solving`` have this noise multiplier."""

        def noised(phase: PlannedPhase) -> PlannedPhase:
            if phase.mechanism is None or phase.budget.name != self.solving:
                return phase
            return phase._replace(mechanism=phase.mechanism.with_noise(noise_multiplier))

        return self._replace(phases=tuple(noised(p) for p in self.phases))

    def prepared(self, steps: int, delta: float) -> "Composition":
        """A copy with each phase prepared for its own number of steps; see ``Mechanism.prepared``."""
        del steps  # each phase is prepared for its own number of steps

        def ready(phase: PlannedPhase) -> PlannedPhase:
            mechanism = phase.mechanism
            return phase if mechanism is None else phase._replace(mechanism=mechanism.prepared(phase.steps, delta))

        return self._replace(phases=tuple(ready(p) for p in self.phases))

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The composed event of the first ``steps`` steps.

        Args:
          steps: number of steps of the run, counted through all phases.
          truncated: whether to account for the truncation of batches at their capacity; if not, the event is that of
            plain Poisson sampling, which RDP also supports.
        """
        events = [m.event(count, truncated=truncated) for _, m, count in self.taken(steps)]
        return events[0] if len(events) == 1 else dp_accounting.ComposedDpEvent(events)

    def epsilon(
        self, steps: int, delta: float, *, accountant: Accountant = "pld", truncated: bool = True, grid: float = FINE
    ) -> float:
        """Epsilon of the first ``steps`` steps; ``inf`` if a phase that has begun has no finite epsilon.

        Args:
          steps: number of steps of the run, counted through all phases.
          delta: the delta of the guarantee, in (0, 1).
          accountant: ``"pld"`` (tight) or ``"rdp"``.
          truncated: whether to account for the truncation of batches at their capacity, which RDP does not support.
          grid: for PLD, the spacing of the grid of privacy losses; see ``accounting.epsilon``.

        Raises:
          UserError: the phases have fewer steps.

        Formal guarantees:
          Each phase's event holds given everything that was released before it, so that the composition of the events
          is the event of the run. A phase that has not begun is not charged.
        """
        taken = self.taken(steps)
        if not taken:
            return 0.0
        if len(taken) == 1:
            _, mechanism, count = taken[0]
            return mechanism.epsilon(count, delta, accountant=accountant, truncated=truncated, grid=grid)
        if any(m.noise_multiplier == 0 or not m.proven for _, m, _ in taken):
            return math.inf
        return epsilon_with_failure(
            self.event(steps, truncated=truncated), delta, self.overflow_share, self.failure(steps),
            accountant=accountant, grid=grid, neighbouring_relation=self.neighbouring_relation,
        )  # fmt: skip


def calibrate_plan(
    plan: Iterable[PlannedPhase], target_epsilon: float, delta: float, *, stopping: bool = False
) -> tuple[PlannedPhase, ...]:
    """The phases with noise multipliers with which all of them together spend at most ``target_epsilon``.

    Args:
      plan: the phases, in order. The noise multiplier of a budget whose phases all have 0 is solved for; if any of its
        phases has noise, its phases stay as they are.
      target_epsilon: the target, above 0.
      delta: the delta of the guarantee, in (0, 1).
      stopping: whether the caller stops when the target is spent, as ``Ledger`` says. Phases that stay as they are may
        then spend more by their last step; otherwise that is an error.

    Raises:
      UserError: the target is not reachable or, without ``stopping``, not met with the noise that stays as it is; or
        the shares of the budgets are not positive or do not add up to 1.

    Examples:
      >>> from efsgd_jax.privacy import FullBatchMechanism
      >>> first = PlannedPhase("means", FullBatchMechanism(1000, 0.0), 1, Budget("means", 0.5))
      >>> then = PlannedPhase("covariances", FullBatchMechanism(1000, 0.0), 1, Budget("covariances", 0.5))
      >>> a, b = calibrate_plan([first, then], target_epsilon=2.0, delta=1e-5)
      >>> a.mechanism.noise_multiplier > b.mechanism.noise_multiplier > 1
      True
    """
    check_delta(delta)
    phases = tuple(plan)
    budgets = list({p.budget.name: p.budget for p in phases if p.mechanism is not None}.values())
    if abs(math.fsum(b.share for b in budgets) - 1) > 1e-9 or min(b.share for b in budgets) <= 0:
        shares = ", ".join(f"{b.name} {b.share:g}" for b in budgets)
        raise UserError(f"the shares of the budget are {shares}; they must be above 0 and add up to 1")
    spendable, solved_last = 0.0, False
    for i, budget in enumerate(budgets):
        spendable += budget.share
        known = {b.name for b in budgets[: i + 1]}
        asked = [p for p in phases if p.budget.name == budget.name and p.mechanism is not None]
        solved_last = not any(p.mechanism is not None and p.mechanism.noise_multiplier > 0 for p in asked)
        if not solved_last:
            continue
        part = Composition(tuple(p for p in phases if p.budget.name in known), solving=budget.name)
        target = target_epsilon if i == len(budgets) - 1 else spendable * target_epsilon
        solved = {p.name: p for p in calibrate_mechanism(part, part.total_steps, target, delta).phases}
        phases = tuple(solved.get(p.name, p) for p in phases)
    if not (solved_last or stopping):
        _check_spent(Composition(phases), target_epsilon, delta)
    return phases


def _check_spent(whole: Composition, target_epsilon: float, delta: float) -> None:
    """Raises ``UserError`` if all steps spend more than the target."""
    spent = whole.epsilon(whole.total_steps, delta, grid=COARSE)
    if not spent <= target_epsilon:  # also where the target is NaN
        noise = ", ".join(f"{p.name} {m.noise_multiplier:g}" for p, m in whole.private)
        raise UserError(
            f"with these noise multipliers ({noise}) all phases together spend epsilon {format_epsilon(spent)}, more "
            f"than {target_epsilon:g}; a noise multiplier of 0 is solved for, others stay as they are"
        )
