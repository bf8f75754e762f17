"""The epsilon that can be proven for the published schedule, whose sampling of shards does not amplify privacy."""

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special, stats

if TYPE_CHECKING:
    from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism


def revealed_epsilon(mechanism: "ShardMechanism", steps: int, delta: float) -> float:
    """The proven epsilon of the schedule ``published``, as if it were public which shard was sampled in each step.

    Formal guarantees:
      A shard's state, and so its later gradients, depend on the steps in which the shard was sampled. The samples of
      different steps are therefore not independent and do not amplify. The bound treats them as public. The changed
      shard is sampled V ~ Binomial(T, 1/K) times, and ``delta(epsilon) = E_V delta_V(epsilon)``, where ``delta_V`` is
      that of one Gaussian with all V B images. With ``hidden`` feedback its residual's Gaussian is added, and the noise
      is split for the mean of V.
    """
    visits = np.arange(steps + 1)
    weights = stats.binom.pmf(visits, steps, 1 / mechanism.num_shards)
    visits, weights = visits[weights > 1e-30], weights[weights > 1e-30]
    # For each V, the squared distance of the two means divided by the variance of the noise.
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
        return math.log(float(np.sum(weights[cost > 0] * deltas)) + 1e-300) - math.log(delta)

    if log_ratio(0.0) <= 0:
        return 0.0
    return float(optimize.brentq(log_ratio, 0.0, float(np.max(cost)) + 40 * float(np.max(mu)) + 100))
