"""DP-SGD, with and without error feedback: what its steps do to the data, as a ``DpEvent``."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import dp_accounting
import jax
import numpy as np
import optax
from scipy import stats

from efsgd_jax.privacy.accounting import FINE, Accountant, epsilon, gaussian_event
from efsgd_jax.privacy.clipped_sum import ClipNorm, sensitivity_of
from efsgd_jax.privacy.feedback import error_feedback_aggregate
from efsgd_jax.privacy.feedback_options import FeedbackMode, Sampling
from efsgd_jax.privacy.hidden_split import best_fresh_share, split_of
from efsgd_jax.privacy.mechanism import ZERO_OUT, Description
from efsgd_jax.privacy.sampling import poisson_batch

# The part of delta that pays for ``local``'s batches that overflow.
LOCAL_OVERFLOW_SHARE = 1e-3
# And the chance for one batch to overflow that gets by with it for any T and epsilon of practice.
LOCAL_OVERFLOW = 1e-25


def dp_sgd_event(
    sampling_probability: float,
    noise_multiplier: float,
    steps: int,
    *,
    dataset_size: int | None = None,
    capacity: int | None = None,
) -> dp_accounting.DpEvent:
    """``Poisson(q, Gaussian(sigma))`` composed ``steps`` times: DP-SGD, and the transform with ``feedback="none"``.

    Args:
      sampling_probability: q, each example's chance to be in a batch.
      noise_multiplier: sigma, noise std over the sensitivity of the sum.
      steps: T.
      dataset_size: N; with ``capacity``, states that a batch is cut to ``capacity`` examples.
      capacity: the padded batch size of ``poisson_batch``.

    Returns:
      The event. Truncation that cannot happen (``capacity >= N``) leaves the plain event.

    Formal guarantees:
      Neighbouring relation: add or remove one example. With truncation the event is dp-accounting's
      ``TruncatedSubsampledGaussianDpEvent`` (arXiv 2508.15089), which PLD supports and RDP does not.

    Examples:
      >>> dp_sgd_event(0.01, 1.0, steps=500).count
      500
    """
    if capacity is not None and dataset_size is not None and capacity < dataset_size:
        step: dp_accounting.DpEvent = dp_accounting.TruncatedSubsampledGaussianDpEvent(
            dataset_size=dataset_size,
            sampling_probability=sampling_probability,
            truncated_batch_size=capacity,
            noise_multiplier=noise_multiplier,
        )
    else:
        gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
        step = dp_accounting.PoissonSampledDpEvent(sampling_probability, gaussian)
    return dp_accounting.SelfComposedDpEvent(step, steps)


def hidden_feedback_event(
    sampling_probability: float,
    noise_multiplier: float,
    steps: int,
    *,
    l2_norm_clip: float,
    feedback_l2_norm_clip: float,
    fresh_share: float,
    dataset_size: int | None = None,
    capacity: int | None = None,
) -> dp_accounting.DpEvent:
    """The transform with ``feedback="hidden"``, without any assumption on the gradients.

    The noise, of variance ``(sigma C1)^2``, is split: ``fresh_share`` of the variance covers the examples drawn now,
    the rest covers the residual.

    Formal guarantees:
      Given what was released before, an example that is added or removed moves step t's sum by its own clipped
      gradient, of norm at most C1, if it is drawn at t; and, once it was ever drawn, by at most ``2 C2`` through
      ``clip(e, C2)``, at every later step and without amplification. The sum of two independent Gaussians is one,
      so the step is the composition of ``Poisson(q, Gaussian(sigma_a))`` with ``Gaussian(sigma_b)`` where
      ``sigma_a = sigma sqrt(share)`` and ``sigma_b = sigma sqrt(1 - share) C1 / (2 C2)``. Holds for every share.

    Examples:
      >>> event = hidden_feedback_event(0.01, 1.0, 500, l2_norm_clip=1.0, feedback_l2_norm_clip=0.1, fresh_share=0.5)
      >>> len(event.events)
      2
    """
    fresh = noise_multiplier * math.sqrt(fresh_share)
    residual = noise_multiplier * math.sqrt(1 - fresh_share) * l2_norm_clip / (2 * feedback_l2_norm_clip)
    events = [dp_sgd_event(sampling_probability, fresh, steps, dataset_size=dataset_size, capacity=capacity)]
    if steps > 1:  # the residual is still zero in the first
        events.append(gaussian_event(residual, steps - 1))
    return dp_accounting.ComposedDpEvent(events)


class DpSgdMechanism(NamedTuple):
    """Everything that decides what a training step costs.

    Attributes:
      dataset_size: N, treated as public.
      sampling_probability: q of the Poisson sampler.
      capacity: padded batch size.
      noise_multiplier: sigma; 0 means no noise and no guarantee.
      l2_norm_clip: C, or one norm per parameter group; its ``sensitivity_of`` is the noise's unit.
      feedback: mode of ``error_feedback_aggregate``.
      feedback_l2_norm_clip: D of that mode; None for ``"none"``.
      feedback_decay: a of ``"local"`` and ``"private"``, None for the mode's default. Costs nothing.
      feedback_share: rho of ``"private"``, None for the default. The event is the same for every share.
      sampling: how batches are drawn; nothing but ``"poisson"`` has an event here.
      fresh_share: of the noise's variance, that on fresh gradients, with ``hidden`` feedback; every share is a valid
        bound, ``prepared`` has the best. None for one half.

    Examples:
      >>> mechanism = DpSgdMechanism(dataset_size=60_000, sampling_probability=0.01, capacity=800, noise_multiplier=1.0)
      >>> 1 < mechanism.epsilon(steps=500, delta=1e-5) < 3
      True
    """

    dataset_size: int
    sampling_probability: float
    capacity: int
    noise_multiplier: float
    l2_norm_clip: ClipNorm = 1.0
    feedback: FeedbackMode = "none"
    feedback_l2_norm_clip: float | None = None
    feedback_decay: float | None = None
    feedback_share: float | None = None
    sampling: Sampling = "poisson"
    fresh_share: float | None = None

    @property
    def proven(self) -> bool:
        return True

    @property
    def neighbouring_relation(self) -> dp_accounting.NeighboringRelation:
        return dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE

    @property
    def overflow_share(self) -> float:
        """The part of delta that pays for batches that overflow."""
        return LOCAL_OVERFLOW_SHARE if self.feedback == "local" else 0.0

    @property
    def expected_batch_size(self) -> float:
        return self.dataset_size * self.sampling_probability

    def transform(self, key: jax.Array) -> optax.GradientTransformationExtraArgs:
        """The transform that does what ``event`` describes."""
        return error_feedback_aggregate(
            self.l2_norm_clip,
            self.noise_multiplier,
            key,
            expected_batch_size=self.expected_batch_size,
            feedback=self.feedback,
            feedback_l2_norm_clip=self.feedback_l2_norm_clip,
            feedback_decay=self.feedback_decay,
            feedback_share=self.feedback_share,
            num_units=self.dataset_size if self.feedback == "local" else None,
            sampling=self.sampling,
        )

    def sample(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The batch that ``event`` describes: rows and mask, as ``poisson_batch`` returns them.

        Args:
          key: typed PRNG key, secret and used once.

        Raises:
          ValueError: batches that are not Poisson samples.
        """
        self._check_sampling()
        return poisson_batch(key, self.dataset_size, self.sampling_probability, self.capacity)

    def _check_sampling(self) -> None:
        if self.sampling != "poisson":
            raise ValueError(f"sampling={self.sampling!r} has no event: only Poisson sampling is accounted for.")

    def with_noise(self, noise_multiplier: float) -> "DpSgdMechanism":
        return self._replace(noise_multiplier=noise_multiplier)

    def prepared(self, steps: int, delta: float) -> "DpSgdMechanism":
        """With the best split of ``hidden`` feedback's noise."""
        if self.feedback != "hidden" or self.noise_multiplier == 0:
            return self
        return self._replace(fresh_share=best_fresh_share(self, steps, delta))

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps; without ``truncated``, of the plain sampler, which RDP also supports.

        Raises:
          ValueError: batches that are not Poisson samples.

        Formal guarantees:
          ``local``: the event is that of the sampler that never overflows; ``epsilon`` charges the difference to delta.
        """
        self._check_sampling()
        if self.noise_multiplier == 0:
            return dp_accounting.NonPrivateDpEvent()
        size: dict[str, int] = {}
        if truncated and self.feedback != "local":
            size = {"dataset_size": self.dataset_size, "capacity": self.capacity}
        if self.feedback != "hidden":
            return dp_sgd_event(self.sampling_probability, self.noise_multiplier, steps, **size)
        assert self.feedback_l2_norm_clip is not None
        return hidden_feedback_event(
            self.sampling_probability,
            self.noise_multiplier,
            steps,
            l2_norm_clip=float(sensitivity_of(self.l2_norm_clip)),
            feedback_l2_norm_clip=self.feedback_l2_norm_clip,
            fresh_share=split_of(self),
            **size,
        )

    def epsilon(
        self,
        steps: int,
        delta: float,
        *,
        accountant: Accountant = "pld",
        truncated: bool = True,
        grid: float = FINE,
    ) -> float:
        """Epsilon of ``steps`` steps at ``delta``; ``inf`` without noise, and where ``local`` overflows too often.

        Formal guarantees:
          ``local``: with probability 1 - p per step no batch overflows and the run is that of the plain sampler, on
          both neighbours. Hence ``delta = delta_0 + (1 + exp(epsilon)) T p`` for the plain sampler's
          ``(epsilon, delta_0)``. Here delta_0 is 0.999 delta, and the rest must suffice.
        """
        if steps == 0:
            return 0.0
        if self.noise_multiplier == 0:
            return math.inf
        event = self.event(steps, truncated=truncated)
        if self.feedback != "local":
            return epsilon(event, delta, accountant=accountant, grid=grid)
        spent = epsilon(event, (1 - LOCAL_OVERFLOW_SHARE) * delta, accountant=accountant, grid=grid)
        overflow = steps * overflow_probability(self.dataset_size, self.sampling_probability, self.capacity)
        allowed = LOCAL_OVERFLOW_SHARE * delta
        # In logarithms: exp(epsilon) overflows where the noise is nearly nothing.
        too_often = overflow > 0 and math.log(overflow) + float(np.logaddexp(0.0, spent)) > math.log(allowed)
        return math.inf if too_often else spent

    def describe(self, steps: int, delta: float, epsilon_spent: float) -> Description:
        del steps, delta, epsilon_spent
        clip = self.l2_norm_clip
        everything = self.sampling_probability >= 1 and self.capacity >= self.dataset_size
        return Description(
            summary="clipped sum of per-example gradients plus Gaussian noise (DP-SGD)" + self._feedback_summary(),
            sampler="none: all records take part" if everything else "Poisson, truncated at capacity",
            neighbouring_relation=ZERO_OUT,
            sensitivity=float(sensitivity_of(clip)),
            parameters={
                **self._asdict(),
                "l2_norm_clip": dict(clip) if isinstance(clip, Mapping) else clip,
            },
        )

    def _feedback_summary(self) -> str:
        return {
            "none": "",
            "local": "; what clipping cuts off stays with its example, at no cost; overflow is charged to delta",
            "private": "; what clipping cuts off is released through a second noisy channel of the same mechanism",
            "hidden": (
                "; clipped hidden error feedback in the same sum; assumption-free accounting with "
                f"{split_of(self):.4f} of the noise's variance on the fresh gradients"
            ),
        }[self.feedback]


def overflow_probability(dataset_size: int, sampling_probability: float, capacity: int) -> float:
    """Chance that a Poisson batch of N examples, of which capacity has room for some, does not fit.

    Examples:
      >>> overflow_probability(dataset_size=1000, sampling_probability=0.1, capacity=1000)
      0.0
    """
    return float(stats.binom.sf(capacity, dataset_size, sampling_probability))
