"""Privacy loss of a Gaussian on a random subset, when any one member may be *replaced*: dp-accounting's PLD lacks it.

dp-accounting's RDP knows ``SampledWithoutReplacementDpEvent`` under ``REPLACE_ONE`` (Wang et al., 2019); its PLD does
not, and RDP is loose: for the published settings of GS-WGAN RDP says 9.24 where this accountant says 5.51.
"""

import functools
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting import pld
from dp_accounting.pld import pld_pmf, privacy_loss_distribution, privacy_loss_mechanism

REPLACE_ONE = dp_accounting.NeighboringRelation.REPLACE_ONE


def replaced_in_subset(
    noise_multiplier: float, share: float, grid: float
) -> privacy_loss_distribution.PrivacyLossDistribution:
    """PLD of one Gaussian release of a member of a random subset, one member of the whole being replaced.

    With Q = N(0, sigma^2), P = N(1, sigma^2), g = ``share`` and H the hockey-stick divergence at e^epsilon::

        delta(epsilon) = max(H((1 - g) Q + g P || Q), H(Q || (1 - g) Q + g P))

    Args:
      noise_multiplier: sigma, noise std over the largest distance between two values.
      share: g in (0, 1], size of the subset over size of the whole.
      grid: of epsilon; any gives an upper bound.

    Formal guarantees:
      Let the outputs be (1 - g) A + g B and (1 - g) A + g B', where A, B, B' are mixtures of Gaussians whose means
      are at most 1 apart. For epsilon >= 0 advanced joint convexity gives ``H <= g H_0(P || Q)``, with ``e^eps = 1 + g
      (e^eps0 - 1)``, which is what the first term is; for epsilon < 0 the second term is the same statement of the
      pair in the other order (Zhu, Dong & Wang, 2022, arXiv 2106.08567, Theorem 11). The maximum of two convex curves
      is convex, so that this is the privacy curve of a dominating pair, and adaptive composition is by convolution.
      The curve between grid points is bounded by connecting the dots (arXiv 2207.04380).
    """
    adjacency = privacy_loss_mechanism.AdjacencyType
    curves = [
        privacy_loss_mechanism.GaussianPrivacyLoss(noise_multiplier, sampling_prob=share, adjacency_type=a)
        for a in (adjacency.REMOVE, adjacency.ADD)
    ]
    bounds = [c.connect_dots_bounds() for c in curves]
    low = int(np.floor(min(b.epsilon_lower for b in bounds) / grid))
    high = int(np.ceil(max(b.epsilon_upper for b in bounds) / grid))
    steps = np.arange(low, high + 1)
    deltas = np.maximum(*(c.get_delta_for_epsilon(steps * grid) for c in curves))
    pmf = pld_pmf.create_pmf_pessimistic_connect_dots(grid, steps, np.minimum.accumulate(deltas))
    return privacy_loss_distribution.PrivacyLossDistribution(pmf)


@functools.lru_cache(maxsize=64)
def _truncated(
    event: dp_accounting.TruncatedSubsampledGaussianDpEvent, grid: float, relation: dp_accounting.NeighboringRelation
) -> privacy_loss_distribution.PrivacyLossDistribution:
    """dp-accounting's PLD of one step, kept: it takes a second, and a ledger asks for many numbers of steps."""
    return privacy_loss_distribution.from_truncated_subsampled_gaussian_mechanism(
        dataset_size=event.dataset_size,
        sampling_probability=event.sampling_probability,
        truncated_batch_size=event.truncated_batch_size,
        noise_multiplier=event.noise_multiplier,
        value_discretization_interval=grid,
        neighboring_relation=relation,
    )


class PLDAccountant(pld.PLDAccountant):
    """dp-accounting's, faster where one step is composed again, and under ``REPLACE_ONE`` with subsets of a fixed size.

    Under ``REPLACE_ONE`` a noise multiplier is the noise's std over the largest *distance between two values*, as in
    dp-accounting's RDP (its own PLD takes twice the norm of one value); events other than Gaussians and subsets are
    refused there.
    """

    _pld: Any

    def _maybe_compose(self, event: dp_accounting.DpEvent, count: int, do_compose: bool):  # type: ignore[no-untyped-def]
        simple = (
            dp_accounting.NoOpDpEvent,
            dp_accounting.NonPrivateDpEvent,
            dp_accounting.SelfComposedDpEvent,
            dp_accounting.ComposedDpEvent,
        )
        grid = self._value_discretization_interval
        if isinstance(event, dp_accounting.TruncatedSubsampledGaussianDpEvent) and do_compose and _has_noise(event):
            one = _truncated(event, grid, self._neighboring_relation)
            self._pld = self._pld.compose(one.self_compose(count))
            return None
        if self._neighboring_relation is not REPLACE_ONE or isinstance(event, simple):
            return super()._maybe_compose(event, count, do_compose)
        if isinstance(event, dp_accounting.GaussianDpEvent):
            if do_compose:
                sigma = event.noise_multiplier / count**0.5
                gaussian = privacy_loss_distribution.from_gaussian_mechanism(sigma, value_discretization_interval=grid)
                self._pld = self._pld.compose(gaussian)
            return None
        if isinstance(event, dp_accounting.SampledWithoutReplacementDpEvent) and isinstance(
            event.event, dp_accounting.GaussianDpEvent
        ):
            if do_compose:
                share = event.sample_size / event.source_dataset_size
                one = replaced_in_subset(event.event.noise_multiplier, share, grid)
                self._pld = self._pld.compose(one.self_compose(count))
            return None
        return pld.PLDAccountant.CompositionErrorDetails(event, "unsupported under REPLACE_ONE.")


def _has_noise(event: dp_accounting.TruncatedSubsampledGaussianDpEvent) -> bool:
    """And reads anybody; other events are dp-accounting's business."""
    return min(event.sampling_probability, event.truncated_batch_size, event.dataset_size, event.noise_multiplier) > 0
