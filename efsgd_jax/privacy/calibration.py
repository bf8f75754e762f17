"""Calibration: the noise multiplier or the number of steps for a target epsilon."""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import dp_accounting
from dp_accounting import rdp
from scipy import optimize

from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy.accounting import COARSE, COARSE_ORDERS, epsilon
from efsgd_jax.privacy.checks import check_delta, whole_number
from efsgd_jax.privacy.dp_sgd import LOCAL_OVERFLOW
from efsgd_jax.privacy.mechanism import Accounted
from efsgd_jax.privacy.subset import ADD_OR_REMOVE_ONE

M = TypeVar("M", bound=Accounted)
# Range in which noise multipliers are searched.
MIN_NOISE_MULTIPLIER, MAX_NOISE_MULTIPLIER = 1e-2, 1e4
MIN_DELTA = 1e-18  # far below it, delta is dominated by the truncation of privacy losses
MAX_EPSILON = 200.0  # probabilities may then change by a factor of exp(200), so that the guarantee has no content


def calibrate_noise_multiplier(
    make_event: Callable[[float], dp_accounting.DpEvent],
    target_epsilon: float,
    delta: float,
    *,
    neighbouring_relation: dp_accounting.NeighboringRelation = ADD_OR_REMOVE_ONE,
    tolerance: float = 1e-3,
) -> float:
    """The smallest noise multiplier whose event spends at most ``target_epsilon``.

    The search begins at large noise, where PLD is fast, and interpolates in logarithms, since epsilon is approximately
    a power of the noise multiplier. If even ``MIN_NOISE_MULTIPLIER`` spends less than the target, a noise multiplier
    below it may be returned, although a smaller one would suffice.

    Args:
      make_event: function from a noise multiplier to the event.
      target_epsilon: the target, above 0.
      delta: the delta of the guarantee, in (0, 1).
      neighbouring_relation: the neighbouring relation of the accountant.
      tolerance: relative tolerance of the noise multiplier.

    Raises:
      UserError: the target is above ``MAX_EPSILON``, delta is below ``MIN_DELTA``, or the target is not reachable with
        a noise multiplier up to ``MAX_NOISE_MULTIPLIER``.

    Formal guarantees:
      Epsilon was computed for the returned noise multiplier, on the coarse grid, and is at most the target.

    Examples:
      >>> from efsgd_jax.privacy.accounting import gaussian_event
      >>> sigma = calibrate_noise_multiplier(gaussian_event, target_epsilon=4.4, delta=1e-5)
      >>> 0.98 < sigma < 1.01
      True
    """
    _check_target(target_epsilon)
    if delta < MIN_DELTA:
        raise UserError(f"delta is {delta:g}: no noise is solved for below {MIN_DELTA:g}; raise the delta")

    @functools.cache
    def spent(sigma: float) -> float:
        return epsilon(make_event(sigma), delta, grid=COARSE, neighbouring_relation=neighbouring_relation)

    high = MAX_NOISE_MULTIPLIER
    if spent(high) > target_epsilon:
        raise _unreachable(target_epsilon, delta, spent(high))
    low = high / 4
    while spent(low) <= target_epsilon:
        if low < MIN_NOISE_MULTIPLIER:
            return low
        high, low = low, low / (4 if spent(low) < target_epsilon / 4 else 2)

    def log_excess(log_sigma: float) -> float:
        return math.log(min(max(spent(math.exp(log_sigma)), 1e-6), 1e6) / target_epsilon)

    low, high = math.log(low), math.log(high)
    sigma = math.exp(optimize.brentq(log_excess, low, high, xtol=tolerance / 2)) if log_excess(high) < 0 else high
    while spent(sigma) > target_epsilon:
        sigma *= 1 + tolerance / 2
    return sigma


def _check_target(target_epsilon: float) -> None:
    if not target_epsilon > 0:
        raise UserError(f"epsilon is {target_epsilon:g}; it is a number above 0")
    if target_epsilon > MAX_EPSILON:
        raise UserError(
            f"epsilon is {target_epsilon:g}: no noise is solved for above {MAX_EPSILON:g}, where nothing is "
            "promised any more; lower the epsilon. Training without noise is privacy.epsilon=inf in a configuration, "
            "and noise_multiplier=0 of a mechanism: both say that nothing is promised"
        )


def _unreachable(target_epsilon: float, delta: float, least: float) -> UserError:
    return UserError(
        f"epsilon {target_epsilon:g} at delta {delta:g} is unreachable: noise multiplier {MAX_NOISE_MULTIPLIER:g} "
        f"still spends {format_epsilon(least, 3)}; raise the epsilon or lower the number of steps"
    )


def rough_noise_multiplier(
    make_event: Callable[[float], dp_accounting.DpEvent],
    target_epsilon: float,
    delta: float,
    neighbouring_relation: dp_accounting.NeighboringRelation = ADD_OR_REMOVE_ONE,
) -> float:
    """Like ``calibrate_noise_multiplier``, but by RDP and to 0.01, for methods whose published accounting uses RDP.

    Args:
      make_event: function from a noise multiplier to the event.
      target_epsilon: the target, above 0.
      delta: the delta of the guarantee, in (0, 1).
      neighbouring_relation: the neighbouring relation of the accountant.

    Raises:
      UserError: the target is above ``MAX_EPSILON``, or not reachable with a noise multiplier up to
        ``MAX_NOISE_MULTIPLIER``.
    """
    _check_target(target_epsilon)
    largest = epsilon(
        make_event(MAX_NOISE_MULTIPLIER), delta, accountant="rdp", orders=COARSE_ORDERS,
        neighbouring_relation=neighbouring_relation,
    )  # fmt: skip
    if not largest <= target_epsilon:
        raise _unreachable(target_epsilon, delta, largest)
    return dp_accounting.calibrate_dp_mechanism(
        lambda: rdp.RdpAccountant(COARSE_ORDERS, neighbouring_relation),
        make_event,
        target_epsilon,
        delta,
        bracket_interval=dp_accounting.ExplicitBracketInterval(MIN_NOISE_MULTIPLIER, MAX_NOISE_MULTIPLIER),
        tol=1e-2,
    )


def calibrate_steps(spent: Callable[[int], float], target_epsilon: float, max_steps: int) -> int:
    """The largest number of steps, at most ``max_steps``, with ``spent(steps) <= target_epsilon``.

    Args:
      spent: function from a number of steps to the epsilon spent by them; it must not decrease.
      target_epsilon: the target, above 0.
      max_steps: the largest number of steps to consider, at least 0.

    Examples:
      >>> calibrate_steps(lambda steps: 0.3 * steps, target_epsilon=1.0, max_steps=10)
      3
    """
    if spent(max_steps) <= target_epsilon:
        return max_steps
    low, high = 0, max_steps  # spent(low) <= target < spent(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= target_epsilon else (low, middle)
    return low


def calibrate_mechanism(mechanism: M, steps: int, target_epsilon: float, delta: float) -> M:
    """``mechanism`` with the smallest noise multiplier with which ``steps`` steps spend at most ``target_epsilon``.

    Parameters that the mechanism chooses for a number of steps (``prepared``), such as ``hidden`` feedback's split of
    the noise, are chosen for the noise multiplier that is found. With ``local`` feedback the noise is solved for with
    the part of delta that is not reserved for batches that overflow.

    Args:
      mechanism: the mechanism whose noise multiplier is solved for.
      steps: the number of steps.
      target_epsilon: the target, above 0.
      delta: the delta of the guarantee, in (0, 1).

    Raises:
      UserError: delta is not between 0 and 1, there is no step, the target is not above 0 or not reachable (see
        ``calibrate_noise_multiplier``), or batches of ``local`` feedback overflow too often for it.

    Examples:
      >>> from efsgd_jax.privacy import FullBatchMechanism
      >>> found = calibrate_mechanism(FullBatchMechanism(1000, 0.0), steps=1, target_epsilon=4.4, delta=1e-5)
      >>> 0.98 < found.noise_multiplier < 1.01
      True
    """
    check_delta(delta)
    steps = whole_number(steps)
    if steps == 0:
        raise UserError("the number of steps is 0; without a step there is no noise to solve for")
    whole_delta, delta = delta, delta * (1 - mechanism.overflow_share)
    relation = mechanism.neighbouring_relation

    def solved(asked: M, tolerance: float = 1e-3) -> M:
        return asked.with_noise(
            calibrate_noise_multiplier(
                lambda sigma: asked.with_noise(sigma).event(steps),
                target_epsilon,
                delta,
                neighbouring_relation=relation,
                tolerance=tolerance,
            )
        )

    rough = mechanism.with_noise(1.0)
    if rough.prepared(steps, whole_delta) == rough:
        found = solved(mechanism)
    else:  # the best parameters depend slightly on the noise
        found = solved(solved(mechanism, tolerance=0.1).prepared(steps, whole_delta))
        found = found.prepared(steps, whole_delta)
        while epsilon(found.event(steps), delta, grid=COARSE, neighbouring_relation=relation) > target_epsilon:
            found = found.with_noise(found.noise_multiplier * 1.0005).prepared(steps, whole_delta)
    if mechanism.overflow_share and found.epsilon(steps, whole_delta, grid=COARSE) == math.inf:
        raise UserError(
            f"epsilon {target_epsilon:g} at delta {whole_delta:g} is not proven with feedback=local: "
            "batches overflow too often for it; choose the capacity by sample_capacity(N, q, "
            f"overflow_probability={LOCAL_OVERFLOW:g}), lower the epsilon or raise the delta"
        )
    return found
