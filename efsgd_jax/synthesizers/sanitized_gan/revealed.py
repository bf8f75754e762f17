"""The epsilon that can be proven for the published schedule, whose sampling of shards does not amplify privacy."""

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special, stats

if TYPE_CHECKING:
    from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism

# Probability up to which a value of V (see ``revealed_epsilon``) is left out of the mean over V.
NEGLECTED = 1e-30
# Largest error of the epsilon that solves the equation.
TOLERANCE = 1e-11


def revealed_epsilon(mechanism: "ShardMechanism", steps: int, delta: float) -> float:
    """The proven epsilon of the schedule ``published``, as if it were public which shard was sampled in each step.

    Args:
      mechanism: the mechanism, which has noise. K is its ``num_shards``, B its ``images_per_step``, sigma its
        ``noise_multiplier``, C its ``l2_norm_clip`` and D its ``feedback_l2_norm_clip``.
      steps: T, the number of steps.
      delta: the delta of the guarantee, in (0, 1).

    Formal guarantees:
      A shard's state, and so its later gradients, depend on the steps in which the shard was sampled. The samples of
      different steps are therefore not independent and do not amplify. The bound treats them as public. The changed
      shard is sampled V ~ Binomial(T, 1/K) times, and ``delta(epsilon) = E_V delta_V(epsilon)``, where ``delta_V`` is
      that of the changed shard's V B sanitised gradients: one Gaussian with noise multiplier ``sigma / sqrt(V B)``.

      With ``hidden`` feedback the residuals are released as well, B of them in each of the T - 1 steps after the first.
      A share s of the noise's variance covers the gradients and 1 - s the residuals, so that ``delta_V`` is that of a
      Gaussian with ``1 / sigma_V^2 = V B / (s sigma^2) + (T - 1) B D^2 / ((1 - s) C^2 sigma^2)``. Every s gives a valid
      bound; the one that minimises the mean of this expression over V is used.

      Values of V with a probability of at most ``NEGLECTED`` are left out of the mean over V. They add
      ``(T + 1) NEGLECTED`` to delta, as if each of them had that probability and a delta of 1. The result is rounded up
      by the tolerance with which the equation is solved.
    """
    left_out = (steps + 1) * NEGLECTED
    if delta <= left_out:
        return math.inf
    visits = np.arange(steps + 1)
    weights = stats.binom.pmf(visits, steps, 1 / mechanism.num_shards)
    visits, weights = visits[weights > NEGLECTED], weights[weights > NEGLECTED]
    # For each V, 1 / sigma_V^2: the squared distance of the two means divided by the variance of the noise.
    cost = mechanism.images_per_step * visits / mechanism.noise_multiplier**2
    if mechanism.feedback == "hidden":
        assert mechanism.feedback_l2_norm_clip is not None
        ratio = mechanism.feedback_l2_norm_clip / mechanism.l2_norm_clip
        residual = mechanism.images_per_step * (steps - 1) * (ratio / mechanism.noise_multiplier) ** 2
        fresh = float(np.sum(weights * cost))
        share = math.sqrt(fresh) / (math.sqrt(fresh) + math.sqrt(residual))  # minimises fresh / s + residual / (1 - s)
        cost = cost / share + (residual / (1 - share) if residual else 0.0)
    mu = np.sqrt(cost[cost > 0])

    def log_ratio(eps: float) -> float:
        upper = special.log_ndtr(-eps / mu + mu / 2)
        lower = eps + special.log_ndtr(-eps / mu - mu / 2)
        deltas = np.exp(upper) * -np.expm1(np.minimum(lower - upper, 0.0))
        return math.log(float(np.sum(weights[cost > 0] * deltas)) + left_out) - math.log(delta)

    if log_ratio(0.0) <= 0:
        return 0.0
    # At the upper end, -eps / mu + mu / 2 is below -40 for every V, so that delta(eps) is below 1e-300.
    largest = float(np.max(cost)) + 40 * float(np.max(mu)) + 100
    return float(optimize.brentq(log_ratio, 0.0, largest, xtol=TOLERANCE)) + 2 * TOLERANCE
