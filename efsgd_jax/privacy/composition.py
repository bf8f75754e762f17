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
from scipy import fft, optimize, signal

# What the tails that are cut may add to delta, as a part of it.
CUT = 1e-6
# Of a probability over delta: above it is nothing but rounding errors, which count as if they were likely.
MAX_EXPONENT = 500.0
# Unit of rounding errors, four times that of a double.
ROUNDING = 2.0**-51
# In points of the grid: all that is likely is one point.
NO_VARIANCE = 1e-9
# Points of a composition, lest it fill memory.
MAX_WINDOW = 2**23
# Of a frequency's part in a composition whose probabilities add up to 1.
LOG_NOTHING = -90.0


class WideLossError(ValueError):
    """The composed losses have too many points on this grid."""


class Factor(NamedTuple):
    """A discrete privacy loss, ``times`` times: ``logs[i]`` is the log-probability of ``grid * (first + i)``."""

    first: float
    logs: np.ndarray
    infinite: float
    times: int

    @property
    def probabilities(self) -> np.ndarray:
        return np.exp(self.logs)

    def log_moment(self, tilt: float) -> float:
        """``log E exp(tilt * loss)`` of one, losses counted in points of the grid."""
        terms = self.logs + tilt * np.arange(len(self.logs))
        most = terms.max()
        return float(most + math.log(np.exp(terms - most).sum()) + tilt * self.first)

    def tilted(self, tilt: float, log_moment: float) -> "Factor":
        """With probabilities in proportion to ``exp(tilt * loss)``."""
        return self._replace(logs=self.logs + tilt * (self.first + np.arange(len(self.logs))) - log_moment)

    def coarser(self, stride: int) -> "Factor":
        """About the same on fewer points, ``stride`` times as far apart; for searching only."""
        starts = np.arange(0, len(self.logs), stride)
        with np.errstate(divide="ignore"):
            logs = np.log(np.add.reduceat(self.probabilities, starts))
        return self._replace(first=self.first / stride, logs=logs)


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
      from the lower end counts as a larger loss than it is. Rounding errors of the FFT are added to what is likely;
      they are small relative to delta: about 1e-15 times the number of steps.

    Raises:
      WideLossError: there are too many points; a coarser grid has fewer.
    """
    symmetric = all(loss._symmetric for loss, _ in losses)
    directions = [[(loss._pmf_remove, count) for loss, count in losses]]
    if not symmetric:
        directions.append([(loss._pmf_add, count) for loss, count in losses])
    worst = 0.0
    for direction in directions:
        dense = [(pmf.to_dense_pmf(), count) for pmf, count in direction]
        with np.errstate(divide="ignore"):
            factors = [Factor(p._lower_loss, np.log(p._probs), p._infinity_mass, count) for p, count in dense]
        worst = max(worst, _epsilon(factors, grid, delta))
    return worst


def _epsilon(factors: Sequence[Factor], grid: float, delta: float) -> float:
    infinite = -math.expm1(sum(f.times * math.log1p(-f.infinite) for f in factors))
    if infinite >= delta:
        return math.inf
    for tilt in (_tilt(factors, math.log(delta)), 0.0):
        found = _tilted_epsilon(factors, grid, delta, infinite, tilt)
        if found is not None:
            return found
    raise AssertionError("without a tilt there is always an answer")


def _tilt(factors: Sequence[Factor], log_chance: float, sign: int = 1) -> float:
    """Where Chernoff's bound on what the loss exceeds with this chance is lowest; its mean under that tilt.

    Args:
      factors: of the composition.
      log_chance: logarithm of the chance.
      sign: 1 for the upper end of the losses, -1 for the lower.
    """
    stride = max(1, max(len(f.probabilities) for f in factors) // 2048)
    factors = [f.coarser(stride) for f in factors]
    variance = sum(f.times * _mean_and_variance(f)[1] for f in factors)
    if not variance > NO_VARIANCE:
        return 0.0
    guess = 0.5 * math.log(max(-2 * log_chance, 1e-3) / variance)

    def bound(log_tilt: float) -> float:
        tilt = math.exp(log_tilt)
        return (sum(f.times * f.log_moment(sign * tilt) for f in factors) - log_chance) / tilt

    most = min(guess + 7, math.log(stride))  # a tilt by 1 from a point to the next leaves one point of all
    bounds = (min(guess, most) - 7, most)
    found = optimize.minimize_scalar(bound, bounds=bounds, method="bounded", options={"xatol": 0.05})
    return sign * math.exp(found.x) / stride


def _mean_and_variance(factor: Factor) -> tuple[float, float]:
    chances = factor.probabilities
    points = np.arange(len(chances), dtype=np.float64)
    total = chances.sum()
    mean = float(chances @ points / total)
    return mean + factor.first, float(chances @ (points - mean) ** 2 / total)


def _tilted_epsilon(factors: Sequence[Factor], grid: float, delta: float, infinite: float, tilt: float) -> float | None:
    """Epsilon, if it is within the losses that are likely under ``tilt``; always, without a tilt."""
    moments = [f.log_moment(tilt) for f in factors]
    log_moment = sum(f.times * m for f, m in zip(factors, moments, strict=True))
    tilted = [f.tilted(tilt, m) for f, m in zip(factors, moments, strict=True)]
    first, last, cut = _window(tilted, math.log(CUT * delta))
    infinite += math.exp(min(math.log(CUT * delta) + log_moment - tilt * last, 0.0)) if cut else 0.0
    if infinite >= delta:
        return None if tilt else math.inf
    if last - first > MAX_WINDOW:
        raise WideLossError
    likely = _convolved(tilted, first, last)
    # Untilted, in units of delta.
    target = delta - infinite
    log_weights = log_moment - math.log(target) - tilt * np.arange(first, last + 1)
    weights = likely * np.exp(np.minimum(log_weights, MAX_EXPONENT))
    above = np.cumsum(weights[::-1])[::-1] - weights
    keep = math.exp(-grid)  # of exp(-loss), from one point to the next
    discounted = signal.lfilter([0, keep], [1, -keep], weights[::-1])[::-1]
    exceeds = np.flatnonzero(above - discounted > 1)
    if not len(exceeds):  # at any of these losses
        return 0.0 if first <= 0 else None if tilt else grid * first
    at = exceeds[-1]
    return max(0.0, grid * (first + float(at)) + math.log((above[at] - 1) / discounted[at]))


def _window(factors: Sequence[Factor], log_cut: float) -> tuple[int, int, bool]:
    """First and last sum of losses, of which ``exp(log_cut)`` at most lies beyond; whether anything does above."""
    lowest = int(sum(f.times * f.first for f in factors))
    highest = int(sum(f.times * (f.first + len(f.probabilities) - 1) for f in factors))
    mean = sum(f.times * _mean_and_variance(f)[0] for f in factors)
    first, last = lowest, highest
    for sign in (1, -1):
        order = _tilt(factors, log_cut, sign)
        if order:
            bound = (sum(f.times * f.log_moment(order) for f in factors) - log_cut) / order
            if sign == 1:
                last = min(highest, max(math.ceil(bound), math.ceil(mean)))
            else:
                first = max(lowest, min(math.floor(bound), math.floor(mean)))
    return first, last, last < highest


def _convolved(factors: Sequence[Factor], first: int, last: int) -> np.ndarray:
    """Probabilities of the sums of losses from ``first`` to ``last``, the ones beyond wrapped around."""
    if [f.times for f in factors] == [1]:
        start = int(first - factors[0].first)
        return factors[0].probabilities[start : start + last - first + 1]
    size = fft.next_fast_len(last - first + 1, real=True)
    spectrum = np.ones(size // 2 + 1, complex)
    for f in factors:
        chances = f.probabilities
        folds = -(-len(chances) // size)
        folded = np.pad(chances, (0, folds * size - len(chances))).reshape(folds, size).sum(0)
        one = fft.rfft(folded)
        # The power of most frequencies is nothing, and takes long.
        counts = f.times * np.log(np.maximum(np.abs(one), 1e-300)) > LOG_NOTHING
        spectrum = np.where(counts, spectrum, 0)
        spectrum[counts] *= one[counts] ** f.times
    sums = fft.irfft(spectrum, size)
    # What a frequency is off by, relative to it, is about the same for all: no sum is off by more than this.
    count = sum(f.times for f in factors)
    sums += ROUNDING * (count + math.log2(size)) * float(np.mean(np.abs(spectrum)))
    start = int(first - sum(f.times * f.first for f in factors))
    return np.maximum(np.roll(sums, -start)[: last - first + 1], 0.0)
