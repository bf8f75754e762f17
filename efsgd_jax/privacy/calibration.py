"""Inverting the accountant: the noise, the number of steps or the split of one budget for a target epsilon."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import dp_accounting
from dp_accounting import rdp
from scipy import optimize

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.accounting import COARSE, COARSE_ORDERS, epsilon
from efsgd_jax.privacy.mechanisms import Mechanism
from efsgd_jax.privacy.shards import ShardMechanism
from efsgd_jax.privacy.subset import ADD_OR_REMOVE_ONE, PLDAccountant

M = TypeVar("M", Mechanism, ShardMechanism)
MAX_NOISE_MULTIPLIER = 1e4
MAX_EPSILON = 200.0  # its promise is that odds change at most exp(200) times


def calibrate_noise_multiplier(
    make_event: Callable[[float], dp_accounting.DpEvent],
    target_epsilon: float,
    delta: float,
    *,
    make_rdp_event: Callable[[float], dp_accounting.DpEvent] | None = None,
    neighbouring_relation: dp_accounting.NeighboringRelation = ADD_OR_REMOVE_ONE,
) -> float:
    """The smallest noise multiplier (to 0.1%) whose event spends at most ``target_epsilon``.

    RDP, which is fast, brackets the answer; PLD, which is tight, finds it.

    Args:
      make_event: noise multiplier -> event.
      target_epsilon: > 0.
      delta: in (0, 1).
      make_rdp_event: the same for RDP, where it does not support ``make_event``'s.
      neighbouring_relation: of the accountants.

    Raises:
      UserError: above ``MAX_EPSILON``, or not reachable with a noise multiplier up to ``MAX_NOISE_MULTIPLIER``.
    """
    make_rdp_event = make_rdp_event or make_event
    rough = rough_noise_multiplier(make_rdp_event, target_epsilon, delta, neighbouring_relation)
    low = rough / 2
    while epsilon(make_event(low), delta, grid=COARSE, neighbouring_relation=neighbouring_relation) <= target_epsilon:
        low /= 2  # RDP is that loose where delta is large
    # RDP is an upper bound, so its noise is enough, but for truncation, which costs a little more: hence the margin.
    sigma = dp_accounting.calibrate_dp_mechanism(
        lambda: PLDAccountant(neighbouring_relation, value_discretization_interval=COARSE),
        make_event,
        target_epsilon,
        delta,
        bracket_interval=dp_accounting.ExplicitBracketInterval(low, rough * 1.5),
        tol=1e-3 * rough,
    )
    return float(sigma)


def rough_noise_multiplier(
    make_event: Callable[[float], dp_accounting.DpEvent],
    target_epsilon: float,
    delta: float,
    neighbouring_relation: dp_accounting.NeighboringRelation = ADD_OR_REMOVE_ONE,
) -> float:
    """``calibrate_noise_multiplier`` by RDP alone, to 0.01: fast."""
    if target_epsilon > MAX_EPSILON:
        raise UserError(
            f"epsilon is {target_epsilon:g}: no noise is solved for above {MAX_EPSILON:g}, where nothing is "
            "promised any more; lower the epsilon, or use epsilon=inf, which is without noise and says so"
        )
    largest = epsilon(
        make_event(MAX_NOISE_MULTIPLIER), delta, accountant="rdp", orders=COARSE_ORDERS,
        neighbouring_relation=neighbouring_relation,
    )  # fmt: skip
    if not largest <= target_epsilon:
        raise UserError(
            f"epsilon {target_epsilon:g} at delta {delta:g} is unreachable: noise multiplier {MAX_NOISE_MULTIPLIER:g} "
            f"still spends {largest:.3g}; raise the epsilon or lower the number of steps"
        )
    return dp_accounting.calibrate_dp_mechanism(
        lambda: rdp.RdpAccountant(COARSE_ORDERS, neighbouring_relation),
        make_event,
        target_epsilon,
        delta,
        bracket_interval=dp_accounting.ExplicitBracketInterval(1e-2, MAX_NOISE_MULTIPLIER),
        tol=1e-2,
    )


def calibrate_steps(spent: Callable[[int], float], target_epsilon: float, max_steps: int) -> int:
    """The largest number of steps, at most ``max_steps``, with ``spent(steps) <= target_epsilon``.

    Args:
      spent: steps -> epsilon, not decreasing.
      target_epsilon: > 0.
      max_steps: >= 0.
    """
    if spent(max_steps) <= target_epsilon:
        return max_steps
    low, high = 0, max_steps  # spent(low) <= target < spent(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= target_epsilon else (low, middle)
    return low


def calibrate_phases(
    phases: Sequence[tuple[Callable[[float], dp_accounting.DpEvent], float]], delta: float
) -> list[float]:
    """The noise multipliers of phases that share one budget, such as a one-shot release, 5,000 steps and a score.

    Args:
      phases: for each phase, in order, noise multiplier -> event, and the epsilon that it and all before it may have
        spent together when it ends; increasing.
      delta: of the whole.

    Returns:
      One noise multiplier per phase; the composition of all their events spends at most the last epsilon.

    Raises:
      UserError: a phase cannot be paid for by what the ones before leave.
    """
    before: list[dp_accounting.DpEvent] = []
    sigmas: list[float] = []
    spent = 0.0
    for make_event, target_epsilon in phases:
        if target_epsilon <= spent:
            raise UserError(f"the phases may have spent {spent:g} and then {target_epsilon:g}: it must increase")
        # Alone, the phase needs less noise for the whole budget and more for what is left of it.
        least, most = (
            calibrate_noise_multiplier(make_event, e, delta) for e in (target_epsilon, target_epsilon - spent)
        )

        def composed(
            sigma: float,
            make_event: Callable[[float], dp_accounting.DpEvent] = make_event,
            before: tuple[dp_accounting.DpEvent, ...] = tuple(before),
        ) -> dp_accounting.DpEvent:
            return dp_accounting.ComposedDpEvent([*before, make_event(sigma)])

        sigma = dp_accounting.calibrate_dp_mechanism(
            lambda: PLDAccountant(value_discretization_interval=COARSE),
            composed,
            target_epsilon,
            delta,
            bracket_interval=dp_accounting.ExplicitBracketInterval(least / 2, 2 * most),
            tol=1e-3 * least,
        )
        sigmas.append(float(sigma))
        before.append(make_event(sigmas[-1]))
        spent = target_epsilon
    return sigmas


def best_fresh_share(mechanism: Mechanism | ShardMechanism, steps: int, delta: float) -> float:
    """The split of ``hidden`` feedback's noise with the lowest epsilon by RDP; every split is a valid bound.

    Depends on the mechanism only, not on data.
    """

    def cost(share: float) -> float:
        event = mechanism.event(steps, truncated=False, fresh_share=share)
        relation = mechanism.neighbouring_relation
        return epsilon(event, delta, accountant="rdp", orders=COARSE_ORDERS, neighbouring_relation=relation)

    result = optimize.minimize_scalar(cost, bounds=(1e-4, 1 - 1e-4), method="bounded", options={"maxiter": 24})
    return float(result.x)


def calibrate_mechanism(mechanism: M, steps: int, target_epsilon: float, delta: float) -> M:
    """``mechanism`` with the noise multiplier with which ``steps`` steps spend at most ``target_epsilon``.

    For ``hidden`` feedback the noise is solved for under the best split of the noise it arrives at; for ``local`` on
    Poisson samples, under the delta that overflowing batches leave.
    """
    delta *= 1 - mechanism.overflow_share
    relation = mechanism.neighbouring_relation

    share = 0.5

    def event(sigma: float, truncated: bool) -> dp_accounting.DpEvent:
        return mechanism._replace(noise_multiplier=sigma).event(steps, truncated=truncated, fresh_share=share)

    if mechanism.feedback == "hidden":
        for _ in range(2):  # the best split depends on the noise a little
            sigma = rough_noise_multiplier(lambda sigma: event(sigma, False), target_epsilon, delta, relation)
            share = best_fresh_share(mechanism._replace(noise_multiplier=sigma), steps, delta)
    sigma = calibrate_noise_multiplier(
        lambda sigma: event(sigma, True),
        target_epsilon,
        delta,
        make_rdp_event=lambda sigma: event(sigma, False),
        neighbouring_relation=relation,
    )
    return mechanism._replace(noise_multiplier=sigma)
