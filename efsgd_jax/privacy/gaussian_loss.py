"""Privacy loss distributions of the subsampled Gaussian mechanism, computed for all points of a grid at once.

dp-accounting inverts the privacy loss point by point, in Python, which would take most of the time of a short run. Here
the same equations are evaluated on arrays. Mixtures and compositions of distributions are those of dp-accounting.
"""

import functools
import math
from collections.abc import Sequence

import dp_accounting
import numpy as np
from dp_accounting.pld import pld_pmf, privacy_loss_mechanism
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
from scipy import stats

Adjacency = privacy_loss_mechanism.AdjacencyType
# Largest range of privacy losses for which a grid is made: with less noise, epsilon is in the hundreds or infinite.
MAX_LOSS_RANGE = 6000.0
# Logarithm of the probability that is truncated from a single loss and counts as infinite loss. It is negligible in
# comparison with every delta, for every number of steps of practice.
LOG_CUT = -60.0


class UnboundedLossError(ValueError):
    """With so little noise the privacy loss has a range above ``MAX_LOSS_RANGE``: epsilon counts as infinite."""


class GaussianPrivacyLoss(privacy_loss_mechanism.GaussianPrivacyLoss):
    """dp-accounting's ``GaussianPrivacyLoss``, whose ``get_delta_for_epsilon`` also accepts arrays."""

    def get_delta_for_epsilon(self, epsilon):  # type: ignore[no-untyped-def]
        """Hockey-stick divergence at ``epsilon``, a number or an array: ``P(x < c) - exp(epsilon) Q(x < c)``.

        P and Q are the distributions of the output x for two neighbours: dp-accounting's ``mu_upper`` and ``mu_lower``.
        c is the value of x at which the privacy loss is ``epsilon``; the privacy loss decreases in x.
        """
        if np.ndim(epsilon) == 0:
            return super().get_delta_for_epsilon(epsilon)
        epsilons = np.asarray(epsilon, np.float64)
        cutoffs = self._where_loss_is(epsilons)
        with np.errstate(over="ignore", invalid="ignore"):
            deltas = self.mu_upper_cdf(cutoffs) - np.exp(epsilons + self.mu_lower_log_cdf(cutoffs))
        # Epsilons outside the range of a mixture's loss: where c is inf, the loss is above epsilon everywhere; where c
        # is -inf, it is below epsilon everywhere.
        deltas = np.where(np.isposinf(cutoffs), -np.expm1(np.minimum(epsilons, 0)), deltas)
        deltas = np.where(np.isneginf(cutoffs), 0.0, deltas)
        return np.clip(deltas, 0, 1)

    def excess(self, epsilons: np.ndarray) -> np.ndarray:
        """``delta(epsilon) - max(0, 1 - exp(epsilon))``, which is accurate also where it is small.

        The subtracted term is the smallest possible delta. For a negative epsilon the result is
        ``exp(epsilon) Q(x > c) - P(x > c)``, for others it is ``delta(epsilon)``.
        """
        above = np.maximum(epsilons, 0)
        below = np.minimum(epsilons, 0)
        cutoffs = self._where_loss_is(below)
        q, s = self.sampling_prob, self.sensitivity
        here, left, right = (self.noise_cdf(-cutoffs + shift) for shift in (0.0, -s, s))
        upper = here if self.adjacency_type == Adjacency.ADD else (1 - q) * here + q * left
        lower = here if self.adjacency_type == Adjacency.REMOVE else (1 - q) * here + q * right
        with np.errstate(invalid="ignore"):
            tails = np.where(np.isneginf(cutoffs), 0.0, np.exp(below) * lower - upper)
        return np.where(epsilons < 0, np.maximum(tails, 0), self.get_delta_for_epsilon(above))

    def _where_loss_is(self, epsilons: np.ndarray) -> np.ndarray:
        """The values of x whose privacy losses are ``epsilons``; infinite where there is no such x."""
        scale = self.standard_deviation**2 / self.sensitivity
        q = self.sampling_prob
        with np.errstate(divide="ignore", over="ignore"):
            if self.adjacency_type == Adjacency.REPLACE:
                return scale * (self._asinh_term(epsilons) - epsilons / 2)
            # The privacy loss without subsampling at the x where the loss with subsampling is epsilon.
            sign = 1 if self.adjacency_type == Adjacency.REMOVE else -1
            alone = sign * _log1p_expm1_over(sign * epsilons, q)
        middle = -0.5 if self.adjacency_type == Adjacency.REMOVE else 0.5
        return middle * self.sensitivity - alone * scale

    def _asinh_term(self, epsilons: np.ndarray) -> np.ndarray:
        """``asinh(-sinh(epsilon / 2) a)`` with ``a = exp(s^2 / (2 sigma^2)) (1 - q) / q``.

        s is the sensitivity, sigma the noise's standard deviation and q the sampling probability. The computation with
        logarithms avoids overflow.
        """
        q, half = self.sampling_prob, np.abs(epsilons) / 2
        if q == 1:
            return np.zeros_like(epsilons)
        log_a = 0.5 * (self.sensitivity / self.standard_deviation) ** 2 + math.log1p(-q) - math.log(q)
        log_sinh = half + np.log1p(-np.exp(-2 * half)) - math.log(2)
        log_y = log_a + log_sinh
        return -np.sign(epsilons) * np.logaddexp(0.5 * np.logaddexp(0, 2 * log_y), log_y)


def _log1p_expm1_over(epsilons: np.ndarray, q: float) -> np.ndarray:
    """``log(1 + (exp(epsilon) - 1) / q)``; minus infinity where the argument of the logarithm is not positive."""
    small = np.log1p(np.maximum(np.expm1(np.minimum(epsilons, 1)) / q, -1))
    large = np.maximum(epsilons, 1)
    return np.where(epsilons < 1, small, large - math.log(q) + np.log1p((q - 1) * np.exp(-large)))


def connect_dots(losses: Sequence[GaussianPrivacyLoss], grid: float) -> pld_pmf.PLDPmf:
    """A discrete distribution for the maximum of the privacy curves of ``losses``, by connecting the dots on a grid.

    Args:
      losses: the privacy losses; the privacy curve of each is delta as a function of epsilon.
      grid: distance between two points of the grid of privacy losses.

    Raises:
      UnboundedLossError: the range of the losses is above ``MAX_LOSS_RANGE``.
    """
    bounds = [loss.connect_dots_bounds() for loss in losses]
    least, most = min(b.epsilon_lower for b in bounds), max(b.epsilon_upper for b in bounds)
    if not most - least <= MAX_LOSS_RANGE:
        raise UnboundedLossError(f"privacy losses from {least:.3g} to {most:.3g}")
    low, high = math.floor(least / grid), math.ceil(most / grid)
    low, high = min(low, -1), max(high, 1)
    excess = np.max([loss.excess(np.arange(low, high + 1) * grid) for loss in losses], axis=0)
    # dp-accounting's ``create_pmf_pessimistic_connect_dots_fixed_gap`` computes the same from deltas instead of their
    # excess. Deltas at negative losses are nearly 1, and on a fine grid their differences have hardly a correct digit.
    slopes = np.diff(excess) / math.expm1(grid)
    inner = np.diff(slopes) - slopes[:-1] * math.expm1(grid)
    inner[-low - 1] += 1  # at 0, where the smallest possible delta has a kink
    probabilities = np.concatenate([[slopes[0] - excess[0]], inner, [-slopes[-1] * math.exp(grid)]])
    return pld_pmf.DensePLDPmf(grid, low, np.maximum(probabilities, 0), float(excess[-1]), True)


def privacy_loss(
    standard_deviation: float, sampling_prob: float, adjacency: privacy_loss_mechanism.AdjacencyType
) -> GaussianPrivacyLoss:
    """Privacy loss of a sum of sensitivity 1 with Gaussian noise, over a random batch.

    Args:
      standard_deviation: that of the noise.
      sampling_prob: probability with which a given example is in the batch.
      adjacency: whether the example is added, removed or replaced.
    """
    return GaussianPrivacyLoss(
        standard_deviation, log_mass_truncation_bound=LOG_CUT, sampling_prob=sampling_prob, adjacency_type=adjacency
    )


def privacy_loss_pmf(
    standard_deviation: float, sampling_prob: float, adjacency: privacy_loss_mechanism.AdjacencyType, grid: float
) -> pld_pmf.PLDPmf:
    """Probability mass function of ``privacy_loss``, discretised on a grid by ``connect_dots``."""
    loss = privacy_loss(standard_deviation, sampling_prob, adjacency)
    return connect_dots([loss], grid)


def poisson_sampled(noise_multiplier: float, sampling_probability: float, grid: float) -> PrivacyLossDistribution:
    """PLD of the noisy sum over a Poisson sample, if one example is added or removed.

    Args:
      noise_multiplier: standard deviation of the noise over the sensitivity of the sum.
      sampling_probability: probability with which each example is in the sample.
      grid: distance between two points of the grid of privacy losses.
    """
    remove = privacy_loss_pmf(noise_multiplier, sampling_probability, Adjacency.REMOVE, grid)
    if sampling_probability == 1:
        return PrivacyLossDistribution(remove)
    return PrivacyLossDistribution(
        remove, privacy_loss_pmf(noise_multiplier, sampling_probability, Adjacency.ADD, grid)
    )


@functools.lru_cache(maxsize=4)
def one_step(
    event: dp_accounting.TruncatedSubsampledGaussianDpEvent | dp_accounting.PoissonSampledDpEvent, grid: float
) -> PrivacyLossDistribution:
    """PLD of one noisy sum over a Poisson sample, if one example is added or removed.

    The result is cached, since a ledger asks for the epsilon of many numbers of steps.

    Args:
      event: a Gaussian on a Poisson sample, or on one that is truncated to a size.
      grid: distance between two points of the grid of privacy losses; every grid gives an upper bound.

    Formal guarantees:
      The loss of a truncated sample is a mixture of two cases. In the first the sample was not truncated. In the
      second, the added example takes the place of another one, which changes the sum by at most 2 sensitivities. See
      arXiv 2508.15089. The result is that of dp-accounting's ``from_truncated_subsampled_gaussian_mechanism``, with
      which the tests compare it.
    """
    if isinstance(event, dp_accounting.PoissonSampledDpEvent):
        return poisson_sampled(event.event.noise_multiplier, event.sampling_probability, grid)
    n, q, capacity = event.dataset_size, event.sampling_probability, event.truncated_batch_size
    whole = poisson_sampled(event.noise_multiplier, q, grid)
    cut = stats.binom.sf(capacity - 1, n - 1, q)  # the probability of truncation, given that the example was sampled
    if cut == 0:
        return whole
    kept = stats.binom.sf(capacity, n, q) * capacity / cut / n  # q times its probability to be kept, given both
    exchanged = PrivacyLossDistribution(privacy_loss_pmf(event.noise_multiplier / 2, kept, Adjacency.REPLACE, grid))
    return exchanged.compute_mixture(whole, cut)
