"""Epsilon of a composition of privacy loss distributions, accurate in the far tail that decides a small delta.

dp-accounting convolves with one FFT, whose rounding errors are about 1e-16 times the number of steps at every value of
the loss, and adds 1e-15 to delta for the tails that it truncates. Both are negligible for a delta of 1e-5, but not for
one of 1e-15. Here the losses are tilted first, as in importance sampling: their probabilities are weighted by
``exp(tilt * loss)``, such that the mean of the composed loss is about epsilon. The FFT then has many correct digits at
the losses that decide delta.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from scipy import fft, optimize, signal

# Largest share of delta that the truncated tails may add to it.
CUT = 1e-6
# Largest exponent of the factors that undo the tilt and divide probabilities by delta. Where the exponent is larger,
# the FFT gives rounding errors only; with the factor exp(MAX_EXPONENT) they still count as if they were likely.
MAX_EXPONENT = 500.0
# Unit of rounding errors of the FFT, four times that of a double.
ROUNDING = 2.0**-51
# Variance of the composed loss, in squared points of the grid, up to which it is not tilted.
NO_VARIANCE = 1e-9
# Largest number of points of a composition, to bound its memory.
MAX_WINDOW = 2**23
# Logarithm of a frequency's magnitude, for probabilities that add up to 1, below which it is set to 0.
LOG_NOTHING = -90.0


class GridTooFineError(ValueError):
    """The composed losses have more than ``MAX_WINDOW`` points on this grid; a coarser grid has fewer."""


class Factor(NamedTuple):
    """A discrete privacy loss distribution and how often it is composed.

    Attributes:
      first: the smallest finite loss, in points of the grid.
      logs: ``logs[i]`` is the log-probability of the loss ``grid * (first + i)``.
      infinite: the probability of an infinite loss.
      times: how often it is composed.
    """

    first: float
    logs: np.ndarray
    infinite: float
    times: int

    @property
    def probabilities(self) -> np.ndarray:
        return np.exp(self.logs)

    def log_moment(self, tilt: float) -> float:
        """``log E exp(tilt * loss)`` of a single loss, over finite losses, counted in points of the grid."""
        terms = self.logs + tilt * np.arange(len(self.logs))
        most = terms.max()
        return float(most + math.log(np.exp(terms - most).sum()) + tilt * self.first)

    def tilted(self, tilt: float, log_moment: float) -> "Factor":
        """The distribution with its probabilities multiplied by ``exp(tilt * loss - log_moment)``."""
        return self._replace(logs=self.logs + tilt * (self.first + np.arange(len(self.logs))) - log_moment)

    def coarser(self, stride: int) -> "Factor":
        """An approximation on fewer points, ``stride`` times as far apart; used only to search for a tilt."""
        starts = np.arange(0, len(self.logs), stride)
        with np.errstate(divide="ignore"):
            logs = np.log(np.add.reduceat(self.probabilities, starts))
        return self._replace(first=self.first / stride, logs=logs)


def epsilon_at(losses: Sequence[tuple[PrivacyLossDistribution, int]], grid: float, delta: float) -> float:
    """The smallest epsilon at ``delta`` of the composition of ``losses``.

    Args:
      losses: pairs of a pessimistic estimate of a privacy loss distribution and how often it is composed.
      grid: distance between two points of the grid that all of the distributions have.
      delta: in (0, 1).

    Returns:
      Epsilon; ``inf`` if the probability of an infinite loss alone is at least ``delta``.

    Formal guarantees:
      An upper bound. The probability that is truncated at the upper end is bounded by Chernoff's bound and counts as
      infinite loss. The probability that wraps around from the lower end counts as a larger loss than it is. A bound
      on the rounding errors of the FFT is added to the probabilities; it is small relative to delta: about 1e-15 times
      the number of steps.

    Raises:
      GridTooFineError: the composition has too many points; a coarser grid has fewer.
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
    """The tilt that minimises Chernoff's bound on the value which the composed loss exceeds with a given probability.

    At the minimum the bound is the mean of the composed loss under that tilt.

    Args:
      factors: the factors of the composition.
      log_chance: logarithm of the probability.
      sign: 1 for the upper end of the losses, -1 for the lower, whose tilts are negative.

    Returns:
      The tilt per point of the grid; 0 if the composed loss has next to no variance.
    """
    stride = max(1, max(len(f.probabilities) for f in factors) // 2048)
    factors = [f.coarser(stride) for f in factors]
    variance = sum(f.times * _mean_and_variance(f)[1] for f in factors)
    if not variance > NO_VARIANCE:
        return 0.0
    # For a Gaussian loss the best tilt is sqrt(2 |log_chance| / variance); a factor of exp(7) around it is searched.
    guess = 0.5 * math.log(max(-2 * log_chance, 1e-3) / variance)

    def bound(log_tilt: float) -> float:
        tilt = math.exp(log_tilt)
        return (sum(f.times * f.log_moment(sign * tilt) for f in factors) - log_chance) / tilt

    most = min(guess + 7, math.log(stride))  # a tilt of 1 per point of the grid leaves one likely point
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
    """Epsilon, or None if it is not among the losses that are computed with this tilt; never None if ``tilt`` is 0."""
    moments = [f.log_moment(tilt) for f in factors]
    log_moment = sum(f.times * m for f, m in zip(factors, moments, strict=True))
    tilted = [f.tilted(tilt, m) for f, m in zip(factors, moments, strict=True)]
    first, last, cut = _window(tilted, math.log(CUT * delta))
    infinite += math.exp(min(math.log(CUT * delta) + log_moment - tilt * last, 0.0)) if cut else 0.0
    if infinite >= delta:
        return None if tilt else math.inf
    if last - first > MAX_WINDOW:
        raise GridTooFineError
    likely = _convolved(tilted, first, last)
    # The probabilities without the tilt, divided by what is left of delta.
    target = delta - infinite
    log_weights = log_moment - math.log(target) - tilt * np.arange(first, last + 1)
    weights = likely * np.exp(np.minimum(log_weights, MAX_EXPONENT))
    above = np.cumsum(weights[::-1])[::-1] - weights
    keep = math.exp(-grid)  # the factor of exp(-loss) from one point to the next
    discounted = signal.lfilter([0, keep], [1, -keep], weights[::-1])[::-1]
    exceeds = np.flatnonzero(above - discounted > 1)
    if not len(exceeds):  # delta is large enough for all of these losses
        return 0.0 if first <= 0 else None if tilt else grid * first
    at = exceeds[-1]
    return max(0.0, grid * (first + float(at)) + math.log((above[at] - 1) / discounted[at]))


def _window(factors: Sequence[Factor], log_cut: float) -> tuple[int, int, bool]:
    """The range of composed losses to compute, in points of the grid.

    Args:
      factors: the factors of the composition.
      log_cut: logarithm of the largest probability that may lie beyond either end.

    Returns:
      The first and the last loss, and whether any losses above the last one are truncated.
    """
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
    """Probabilities of the composed losses from ``first`` to ``last``; those outside this range are wrapped
    around, or cut off if nothing is composed."""
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
        # Most frequencies have a negligible magnitude; computing their powers would take long.
        matters = f.times * np.log(np.maximum(np.abs(one), 1e-300)) > LOG_NOTHING
        spectrum = np.where(matters, spectrum, 0)
        spectrum[matters] *= one[matters] ** f.times
    sums = fft.irfft(spectrum, size)
    # The relative error is about the same for all frequencies: no probability is off by more than what is added here.
    count = sum(f.times for f in factors)
    sums += ROUNDING * (count + math.log2(size)) * float(np.mean(np.abs(spectrum)))
    start = int(first - sum(f.times * f.first for f in factors))
    return np.maximum(np.roll(sums, -start)[: last - first + 1], 0.0)
