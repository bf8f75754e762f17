"""Epsilon of many privacy losses together, exact in the far tail where a small delta is.

dp-accounting convolves with one FFT, whose rounding errors are about 1e-16 times the number of steps wherever the loss
is, and adds 1e-15 to delta for the tails that it cuts. Both are nothing beside a delta of 1e-5, and all there is of one
of 1e-15. Here the losses are tilted first, as in importance sampling: weighted by ``exp(tilt * loss)`` such that the
composed loss is about epsilon in the mean. The FFT is then exact to many digits where delta is decided.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from scipy import fft, optimize, special

# What the tails that are cut may add to delta, as a part of it.
CUT = 1e-6
# Exponents beyond it are losses so far below epsilon that they decide nothing.
MAX_EXPONENT = 300.0


class Factor(NamedTuple):
    """A discrete privacy loss, ``count`` times: ``probabilities[i]`` is that of the loss ``grid * (first + i)``."""

    first: float
    probabilities: np.ndarray
    infinite: float
    count: int

    def log_moment(self, tilt: float) -> float:
        """``log E exp(tilt * loss)`` of one, losses counted in points of the grid."""
        exponents = tilt * np.arange(len(self.probabilities))
        return float(special.logsumexp(exponents, b=self.probabilities)) + tilt * self.first

    def coarser(self, stride: int) -> "Factor":
        """About the same on fewer points, ``stride`` times as far apart; for searching only."""
        starts = np.arange(0, len(self.probabilities), stride)
        return self._replace(first=self.first / stride, probabilities=np.add.reduceat(self.probabilities, starts))


def epsilon_at(losses: Sequence[tuple[PrivacyLossDistribution, int]], grid: float, delta: float) -> float:
    """The smallest epsilon at ``delta`` of all ``losses`` composed, each as often as it says.

    Args:
      losses: pessimistic estimates on ``grid``.
      grid: of all of them.
      delta: in (0, 1).

    Returns:
      Epsilon; ``inf`` if infinite losses alone are as likely as ``delta``.

    Formal guarantees:
      An upper bound. What is cut at the upper end is bounded by Chernoff and counts as infinite loss; what wraps around
      from the lower end counts as a larger loss than it is. Rounding errors are relative to delta: about 1e-16 times
      the number of steps.
    """
    symmetric = all(loss._symmetric for loss, _ in losses)
    directions = [[(loss._pmf_remove, count) for loss, count in losses]]
    if not symmetric:
        directions.append([(loss._pmf_add, count) for loss, count in losses])
    worst = 0.0
    for direction in directions:
        dense = [(pmf.to_dense_pmf(), count) for pmf, count in direction]
        factors = [Factor(pmf._lower_loss, pmf._probs, pmf._infinity_mass, count) for pmf, count in dense]
        worst = max(worst, _epsilon(factors, grid, delta))
    return worst


def _epsilon(factors: Sequence[Factor], grid: float, delta: float) -> float:
    infinite = -math.expm1(sum(f.count * math.log1p(-f.infinite) for f in factors))
    if infinite >= delta:
        return math.inf
    for tilt in (_tilt(factors, delta), 0.0):
        found = _tilted_epsilon(factors, grid, delta, infinite, tilt)
        if found is not None:
            return found
    raise AssertionError("without a tilt there is always an answer")


def _tilt(factors: Sequence[Factor], delta: float) -> float:
    """Where Chernoff's bound on epsilon is lowest: the tilted loss has it for its mean."""
    stride = max(1, max(len(f.probabilities) for f in factors) // 2048)
    factors = [f.coarser(stride) for f in factors]
    variance = sum(f.count * _mean_and_variance(f)[1] for f in factors)
    if not variance > 0:
        return 0.0
    guess = 0.5 * math.log(2 * math.log(2 / delta) / variance)

    def bound(log_tilt: float) -> float:
        tilt = math.exp(log_tilt)
        return (sum(f.count * f.log_moment(tilt) for f in factors) - math.log(delta)) / tilt

    found = optimize.minimize_scalar(bound, bounds=(guess - 7, guess + 5), method="bounded", options={"xatol": 0.05})
    return math.exp(found.x) / stride


def _mean_and_variance(factor: Factor) -> tuple[float, float]:
    points = np.arange(len(factor.probabilities))
    total = factor.probabilities.sum()
    mean = float(factor.probabilities @ points / total)
    return mean + factor.first, float(factor.probabilities @ (points - mean) ** 2 / total)


def _tilted_epsilon(
    factors: Sequence[Factor], grid: float, delta: float, infinite: float, tilt: float
) -> float | None:
    """Epsilon, if it is within the losses that are likely under ``tilt``; always, without a tilt."""
    moments = [f.log_moment(tilt) for f in factors]
    log_moment = sum(f.count * m for f, m in zip(factors, moments, strict=True))
    tilted = [
        f._replace(probabilities=f.probabilities * np.exp(tilt * (f.first + np.arange(len(f.probabilities))) - m))
        for f, m in zip(factors, moments, strict=True)
    ]
    first, last, cut = _window(tilted, math.log(CUT * delta))
    infinite += math.exp(min(math.log(CUT * delta) + log_moment - tilt * last, 0.0)) if cut else 0.0
    if infinite >= delta:
        return None if tilt else math.inf
    likely = _convolved(tilted, first, last)
    # Untilted, in units of what the loss at the mean is weighted with, lest it overflow.
    mean = sum(f.count * _mean_and_variance(f)[0] for f in tilted)
    points = np.arange(first, last + 1)
    weights = likely * np.exp(np.minimum(-tilt * (points - mean), MAX_EXPONENT))
    target = math.exp(min(math.log(delta - infinite) - log_moment + tilt * mean, 2 * MAX_EXPONENT))
    discounts = np.exp(np.clip(-grid * (points - mean), -MAX_EXPONENT, MAX_EXPONENT))
    above = np.cumsum(weights[::-1])[::-1] - weights
    discounted = np.cumsum((weights * discounts)[::-1])[::-1] - weights * discounts
    exceeds = np.flatnonzero(above - discounted / discounts > target)
    if not len(exceeds):  # at any of these losses
        return 0.0 if first <= 0 else None if tilt else grid * first
    at = exceeds[-1]
    return max(0.0, grid * mean + math.log((above[at] - target) / discounted[at]))


def _window(factors: Sequence[Factor], log_cut: float) -> tuple[int, int, bool]:
    """First and last sum of losses, of which ``exp(log_cut)`` at most lies beyond; whether anything does above."""
    lowest = sum(f.count * f.first for f in factors)
    highest = sum(f.count * (f.first + len(f.probabilities) - 1) for f in factors)
    moments = [_mean_and_variance(f) for f in factors]
    mean = sum(f.count * m for f, (m, _) in zip(factors, moments, strict=True))
    variance = sum(f.count * v for f, (_, v) in zip(factors, moments, strict=True))
    first, last = lowest, highest
    if variance > 0:
        guess = math.sqrt(-2 * log_cut / variance)
        for order in guess * np.array([0.125, 0.25, 0.5, 0.7, 1.0, 1.4]):
            above, below = (sum(f.count * f.log_moment(s) for f in factors) - log_cut for s in (order, -order))
            last = min(last, max(math.ceil(above / order), math.ceil(mean)))
            first = max(first, min(math.floor(-below / order), math.floor(mean)))
    return first, last, last < highest


def _convolved(factors: Sequence[Factor], first: int, last: int) -> np.ndarray:
    """Probabilities of the sums of losses from ``first`` to ``last``, the ones beyond wrapped around."""
    size = fft.next_fast_len(last - first + 1, real=True)
    spectrum = np.ones(size // 2 + 1, complex)
    for f in factors:
        folds = -(-len(f.probabilities) // size)
        folded = np.pad(f.probabilities, (0, folds * size - len(f.probabilities))).reshape(folds, size).sum(0)
        spectrum *= fft.rfft(folded) ** f.count
    sums = fft.irfft(spectrum, size)
    start = first - sum(f.count * f.first for f in factors)
    return np.maximum(np.roll(sums, -start)[: last - first + 1], 0.0)
