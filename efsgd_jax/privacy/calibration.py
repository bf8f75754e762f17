"""Inverting the accountant: the noise, the number of steps or the split of noise for a target epsilon."""

from collections.abc import Callable

import dp_accounting
from dp_accounting import pld, rdp
from scipy import optimize

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.accounting import COARSE, MAX_NOISE_MULTIPLIER, Mechanism, epsilon


def calibrate_noise_multiplier(
    make_event: Callable[[float], dp_accounting.DpEvent],
    target_epsilon: float,
    delta: float,
    *,
    make_rdp_event: Callable[[float], dp_accounting.DpEvent] | None = None,
) -> float:
    """The smallest noise multiplier (to 0.1%) whose event spends at most ``target_epsilon``.

    RDP, which is fast, brackets the answer; PLD, which is tight, finds it.

    Args:
      make_event: noise multiplier -> event.
      target_epsilon: > 0.
      delta: in (0, 1).
      make_rdp_event: the same for RDP, where it does not support ``make_event``'s.

    Raises:
      UserError: not reachable with a noise multiplier up to ``MAX_NOISE_MULTIPLIER``.
    """
    make_rdp_event = make_rdp_event or make_event
    largest = epsilon(make_rdp_event(MAX_NOISE_MULTIPLIER), delta, accountant="rdp")
    if not largest <= target_epsilon:
        raise UserError(
            f"epsilon {target_epsilon:g} at delta {delta:g} is unreachable: noise multiplier {MAX_NOISE_MULTIPLIER:g} "
            f"still spends {largest:.3g}; raise the epsilon or lower the number of steps"
        )
    rough = dp_accounting.calibrate_dp_mechanism(
        rdp.RdpAccountant,
        make_rdp_event,
        target_epsilon,
        delta,
        bracket_interval=dp_accounting.ExplicitBracketInterval(1e-2, MAX_NOISE_MULTIPLIER),
        tol=1e-2,
    )
    # RDP is an upper bound, so its noise is enough, but for truncation, which costs a little more: hence the margin.
    sigma = dp_accounting.calibrate_dp_mechanism(
        lambda: pld.PLDAccountant(value_discretization_interval=COARSE),
        make_event,
        target_epsilon,
        delta,
        bracket_interval=dp_accounting.ExplicitBracketInterval(rough / 2, rough * 1.5),
        tol=1e-3 * rough,
    )
    return float(sigma)


def best_fresh_share(mechanism: Mechanism, steps: int, delta: float) -> float:
    """The split of ``hidden`` feedback's noise with the lowest epsilon by RDP; every split is a valid bound.

    Depends on the mechanism only, not on data.
    """

    def cost(share: float) -> float:
        event = mechanism.event(steps, truncated=False, fresh_share=share)
        return epsilon(event, delta, accountant="rdp")

    result = optimize.minimize_scalar(cost, bounds=(1e-4, 1 - 1e-4), method="bounded", options={"maxiter": 24})
    return float(result.x)


def calibrate_mechanism(mechanism: Mechanism, steps: int, target_epsilon: float, delta: float) -> Mechanism:
    """``mechanism`` with the noise multiplier with which ``steps`` steps spend at most ``target_epsilon``.

    For ``hidden`` feedback the noise is solved for under the best split of the noise it arrives at.
    """

    def solve(share: float) -> Mechanism:
        def at(sigma: float, truncated: bool) -> dp_accounting.DpEvent:
            candidate = mechanism._replace(noise_multiplier=sigma)
            return candidate.event(steps, truncated=truncated, fresh_share=share)

        sigma = calibrate_noise_multiplier(
            lambda sigma: at(sigma, True), target_epsilon, delta, make_rdp_event=lambda sigma: at(sigma, False)
        )
        return mechanism._replace(noise_multiplier=sigma)

    solved = solve(0.5)
    return solved if mechanism.feedback == "none" else solve(best_fresh_share(solved, steps, delta))
