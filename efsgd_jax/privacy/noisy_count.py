"""A count, released: discrete Laplace noise in exact arithmetic."""

import math
import secrets
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from scipy import stats

Randbelow = Callable[[int], int]
CONFIDENCE = 0.95


class NoisyMean(NamedTuple):
    """What ``noisy_mean`` releases.

    Attributes:
      mean: in [0, 1].
      low, high: 95% interval of what the mean would be on ever more units of the same kind.
      noise_std: of ``mean``, from the noise alone, before it is clamped.
    """

    mean: float
    low: float
    high: float
    noise_std: float


def discrete_laplace(scale: Fraction, randbelow: Randbelow = secrets.randbelow) -> int:
    """An integer z with chance proportional to ``exp(-|z| / scale)``, without rounding.

    Args:
      scale: > 0.
      randbelow: n -> uniform in ``0..n-1``; the system's entropy.

    References:
      Canonne, Kamath, Steinke, 2020, The Discrete Gaussian for Differential Privacy, arXiv 2004.00010, Algorithm 2.
    """
    t, s = scale.numerator, scale.denominator
    while True:
        u = randbelow(t)
        if not _flip(u, t, randbelow):
            continue
        v = 0
        while _flip(1, 1, randbelow):
            v += 1
        size, negative = (u + t * v) // s, randbelow(2)
        if size or not negative:  # zero has one sign
            return -size if negative else size


def _flip(numerator: int, denominator: int, randbelow: Randbelow) -> bool:
    """True with chance ``exp(-numerator / denominator)``, of a fraction in [0, 1]."""
    k = 1
    while randbelow(k * denominator) < numerator:
        k += 1
    return k % 2 == 1


def noisy_total(total: int, epsilon: float, *, rounds: int = 1, randbelow: Randbelow = secrets.randbelow) -> int:
    """How many 0/1 answers are 1, of all units in each of ``rounds`` rounds, with noise of scale rounds / epsilon.

    Args:
      total: the count.
      epsilon: > 0, the price.
      rounds: S, public; answers about one unit.
      randbelow: of ``discrete_laplace``.

    Formal guarantees:
      ``(epsilon, 0)``-differential privacy, if a unit changes the answers about itself only. It has one answer in each
      round, so that adding it, removing it or replacing it by another moves ``total`` by at most S, and the chance of
      any value, which is proportional to ``exp(-|value - total| epsilon / S)``, by a factor of at most
      ``exp(epsilon)``.
      The arithmetic is of integers: what is drawn has exactly that distribution.
    """
    return total + discrete_laplace(Fraction(rounds) / Fraction(epsilon), randbelow)


def noisy_mean(
    total: int, units: int, epsilon: float, *, rounds: int = 1, randbelow: Randbelow = secrets.randbelow
) -> NoisyMean:
    """``noisy_total`` as the mean of the answers about M = ``units`` units.

    Formal guarantees:
      Those of ``noisy_total``, for a public M: the rest is post-processing. The noise of the mean has scale
      1 / (epsilon M) for every S: counts that one unit moves by at most 1 each have a mean that it moves by at most 1.

    The interval is Bonferroni's: half of the 5% for the noise, half for Clopper and Pearson's bounds of M units at
    either end of what the noise leaves. For S > 1 their beta quantiles take the mean count for a count; a unit's mean
    answer varies no more than one answer.
    """
    noisy = noisy_total(total, epsilon, rounds=rounds, randbelow=randbelow)
    decay = epsilon / rounds
    tail = (1 - CONFIDENCE) / 4  # of each side of each half
    reach = -int(stats.dlaplace.ppf(tail, decay))
    least, most = (min(max((noisy + d) / rounds, 0.0), float(units)) for d in (-reach, reach))
    low = float(stats.beta.ppf(tail, least, units - least + 1)) if least > 0 else 0.0
    high = float(stats.beta.isf(tail, most + 1, units - most)) if most < units else 1.0
    std = 1 / (math.sqrt(2) * math.sinh(decay / 2)) / (rounds * units)
    return NoisyMean(min(max(noisy / (rounds * units), 0.0), 1.0), low, high, std)
