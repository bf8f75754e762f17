"""Release of a count with discrete Laplace noise, in exact arithmetic."""

import math
import secrets
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from scipy import stats

Randbelow = Callable[[int], int]
# Confidence of the interval of ``noisy_mean``.
CONFIDENCE = 0.95


class NoisyMean(NamedTuple):
    """The result of ``noisy_mean``.

    Attributes:
      mean: the noisy mean, clamped to [0, 1].
      low, high: 95% confidence interval of the population mean: the expected answer about a unit, if the units are
        independent samples from a population.
      noise_std: standard deviation of ``mean``, before clamping, that is due to the noise alone.
    """

    mean: float
    low: float
    high: float
    noise_std: float


def discrete_laplace(scale: Fraction, randbelow: Randbelow = secrets.randbelow) -> int:
    """Samples an integer z with probability proportional to ``exp(-|z| / scale)``, without rounding.

    Args:
      scale: the scale of the distribution, above 0.
      randbelow: function from n to a uniform integer in ``0..n-1``; by default from the operating system's random
        source.

    References:
      Canonne, Kamath, Steinke, 2020, The Discrete Gaussian for Differential Privacy, arXiv 2004.00010, Algorithm 2.
    """
    t, s = scale.numerator, scale.denominator
    # The names are those of Algorithm 2. The integer u + t v is geometric: its probability is proportional to
    # exp(-(u + t v) / t). Dividing by s and rounding down gives probabilities proportional to exp(-size s / t).
    while True:
        u = randbelow(t)
        if not _exponential_bernoulli(u, t, randbelow):
            continue
        v = 0
        while _exponential_bernoulli(1, 1, randbelow):
            v += 1
        size, negative = (u + t * v) // s, randbelow(2)
        if size or not negative:  # zero with a negative sign is rejected, so that it is not counted twice
            return -size if negative else size


def _exponential_bernoulli(numerator: int, denominator: int, randbelow: Randbelow) -> bool:
    """True with probability ``exp(-x)``, for the fraction x = ``numerator / denominator`` in [0, 1].

    Algorithm 1 of Canonne, Kamath, Steinke, 2020. Bernoulli samples with probabilities ``x / 1``, ``x / 2``, ... are
    drawn until the first that is False. More than k samples are drawn with probability ``x^k / k!``, so that the number
    of samples is odd with probability ``1 - x + x^2 / 2! - ... = exp(-x)``.
    """
    k = 1
    while randbelow(k * denominator) < numerator:
        k += 1
    return k % 2 == 1


def noisy_total(
    total: int, epsilon: float, *, answers_per_unit: int = 1, randbelow: Randbelow = secrets.randbelow
) -> int:
    """A count plus discrete Laplace noise of scale ``answers_per_unit / epsilon``.

    The count is the number of answers 1, where each of S questions, with answers 0 or 1, is asked about every unit.
    A unit is a test image, for instance, and question s whether classifier s predicts its label correctly.

    Args:
      total: the count.
      epsilon: epsilon of this release, above 0.
      answers_per_unit: S, public: the number of answers about one unit.
      randbelow: source of randomness; see ``discrete_laplace``.

    Formal guarantees:
      ``(epsilon, 0)``-differential privacy, if a unit changes the answers about itself only. It has S
      answers, so that adding it, removing it or replacing it by another changes ``total`` by at most S. The probability
      of any value is proportional to ``exp(-|value - total| epsilon / S)``, and so changes by a factor of at most
      ``exp(epsilon)``. The arithmetic is in integers, so that the noise has exactly this distribution.
    """
    return total + discrete_laplace(Fraction(answers_per_unit) / Fraction(epsilon), randbelow)


def noisy_mean(
    total: int, units: int, epsilon: float, *, answers_per_unit: int = 1, randbelow: Randbelow = secrets.randbelow
) -> NoisyMean:
    """``noisy_total`` divided by the number of answers, with a confidence interval.

    The confidence interval is a Bonferroni combination. Half of the 5% is for an interval of the count from the noise,
    the other half for Clopper-Pearson bounds for M units at the two ends of that interval. For S > 1 the count that
    enters the beta quantiles is the mean of the counts of the S questions. The mean of the S answers about a unit is in
    [0, 1], so that its variance is at most that of a single answer, 0 or 1, with the same mean.

    Args:
      total: the count; see ``noisy_total``.
      units: M, the number of units, public.
      epsilon: epsilon of this release, above 0.
      answers_per_unit: S, public: the number of answers about one unit.
      randbelow: source of randomness; see ``discrete_laplace``.

    Formal guarantees:
      Those of ``noisy_total``, for a public M, since everything after it is post-processing. The noise of the mean has
      scale 1 / (epsilon M) for every S: one unit changes the count of each question by at most 1, and so the mean of
      these counts by at most 1.
    """
    noisy = noisy_total(total, epsilon, answers_per_unit=answers_per_unit, randbelow=randbelow)
    decay = epsilon / answers_per_unit  # 1 / scale: the noise z has probability proportional to exp(-decay |z|)
    tail = (1 - CONFIDENCE) / 4  # the error probability of each of the four ends
    reach = -int(stats.dlaplace.ppf(tail, decay))
    least, most = (min(max((noisy + d) / answers_per_unit, 0.0), float(units)) for d in (-reach, reach))
    low = float(stats.beta.ppf(tail, least, units - least + 1)) if least > 0 else 0.0
    high = float(stats.beta.isf(tail, most + 1, units - most)) if most < units else 1.0
    # The standard deviation of discrete Laplace noise is 1 / (sqrt(2) sinh(decay / 2)).
    std = 1 / (math.sqrt(2) * math.sinh(decay / 2)) / (answers_per_unit * units)
    return NoisyMean(min(max(noisy / (answers_per_unit * units), 0.0), 1.0), low, high, std)
