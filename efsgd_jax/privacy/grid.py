"""The choice of the grid of privacy losses, fine enough that the discretisation hardly increases epsilon.

Connecting the dots divides the probability of a loss between the two neighbouring points of the grid. If neighbouring
points are h apart, this adds at most ``h^2 / 4``, and about ``h^2 / 6`` in the mean, to the variance of every factor of
a composition. The contribution of a factor to epsilon is measured by its chi-squared divergence. For a Gaussian on a
batch that contains a given example with probability q it is ``q^2 (exp(1 / sigma^2) - 1)``, which is the variance of
the privacy loss if the noise is large. With h an eighth of its square root, this variance increases by 0.26%, as much
as 0.13% more noise reduces it.

In this module a grid is given by its spacing h, and a factor is one mechanism of a composition.
"""

import math
from collections.abc import Iterable

# Spacings of the grid: COARSE for searching, FINE for reports. The coarse one is a multiple of the fine one, also after
# both are refined, so that the fine epsilon of an event is never above the coarse one.
FINE, COARSE = 1e-4, 1e-3
# The coarse grid has at least this many points in one standard deviation (root mean square over the factors).
POINTS_PER_DEVIATION = 8
# The smallest spacing: with a smaller one the rounding errors of delta, of 1e-16 each, would dominate.
FINEST = COARSE / 2**13
# Largest number of points for the losses of one factor, to bound its memory.
MAX_POINTS = 2**21
# Smaller noise multipliers are replaced by this one in ``chi_square``. Its divergence is already so large that the grid
# is not refined, and the exponential would overflow for smaller ones.
LEAST = 0.04


def chi_square(noise_multiplier: float, sampling_prob: float = 1.0) -> float:
    """Chi-squared divergence of a Gaussian of sensitivity 1 on a batch that samples each example independently."""
    return sampling_prob**2 * math.expm1(max(noise_multiplier, LEAST) ** -2)


def width(noise_multiplier: float, sampling_prob: float = 1.0) -> float:
    """Approximate range of the privacy losses of the Gaussian of ``chi_square``, cut at 11 standard deviations.

    Beyond these lies less than the probability that ``gaussian_loss.LOG_CUT`` truncates.
    """
    largest = 11 / noise_multiplier + 0.5 / max(noise_multiplier, 1e-9) ** 2
    return 2 * (math.log1p(sampling_prob * math.expm1(largest)) if largest < 700 else largest)


def refined(grid: float, factors: Iterable[tuple[float, int]], widest: float) -> float:
    """The spacing of the grid for a composition: ``grid``, a finer one, or a coarser one.

    It is finer if the privacy losses of the factors are small in comparison with ``grid``, and coarser if they would
    have more than about ``MAX_POINTS`` points.

    Args:
      grid: ``FINE`` or ``COARSE``.
      factors: for each factor of the composition, its chi-squared divergence and how often it is composed.
      widest: the largest ``width`` of a factor.

    Formal guarantees:
      Every grid gives an upper bound. If a grid contains all points of another one, its bound is not above the other's,
      since the piecewise linear curve through more points of a convex curve lies nowhere above that through fewer. More
      of the same factors do not change the grid.
    """
    total, count = 0.0, 0
    for divergence, times in factors:
        total, count = total + times * divergence, count + times
    finer = 0
    if total > 0:
        finer = max(0, math.ceil(math.log2(POINTS_PER_DEVIATION * COARSE / math.sqrt(total / count))))
    least = FINEST
    if widest > FINEST * MAX_POINTS:
        least = COARSE * 2.0 ** math.ceil(math.log2(widest / MAX_POINTS / COARSE))
    return max(grid / 2**finer, least)
