"""How the accounting of ``hidden`` feedback divides the noise's variance between fresh gradients and the residual.

The fresh gradients are those of the step; the residual is what clipping removed in earlier steps.
Every split gives a valid upper bound of epsilon; ``best_fresh_share`` searches for the lowest one.
"""

from typing import Any

from scipy import optimize

from efsgd_jax.privacy.accounting import COARSE_ORDERS, epsilon


def split_of(mechanism: Any) -> float:
    """The share of the noise's variance that the mechanism's event assigns to the fresh gradients; by default 0.5."""
    return 0.5 if mechanism.fresh_share is None else float(mechanism.fresh_share)


def best_fresh_share(mechanism: Any, steps: int, delta: float) -> float:
    """The share of the noise's variance for the fresh gradients with the lowest epsilon by RDP.

    It depends on the mechanism only, not on data.

    Args:
      mechanism: a mechanism with ``hidden`` feedback and noise: a NamedTuple with a field ``fresh_share``.
      steps: T, the number of steps.
      delta: the delta at which epsilon is minimised, in (0, 1).

    Examples:
      >>> from efsgd_jax.privacy import DpSgdMechanism
      >>> hidden = DpSgdMechanism(1000, 0.1, 200, 8.0, feedback="hidden", feedback_l2_norm_clip=0.1)
      >>> 0 < best_fresh_share(hidden, steps=10, delta=1e-5) < 1
      True
    """

    def cost(share: float) -> float:
        event = mechanism._replace(fresh_share=share).event(steps, truncated=False)
        relation = mechanism.neighbouring_relation
        return epsilon(event, delta, accountant="rdp", orders=COARSE_ORDERS, neighbouring_relation=relation)

    result = optimize.minimize_scalar(cost, bounds=(1e-4, 1 - 1e-4), method="bounded", options={"maxiter": 24})
    return float(result.x)
