"""Mechanisms -> ``DpEvent`` -> epsilon, by PLD and by RDP, and the noise that a target epsilon needs."""

import math
from typing import Literal, NamedTuple

import dp_accounting
from dp_accounting import pld, rdp

from efsgd_jax.privacy.clipping import ClipNorm, sensitivity_of

Accountant = Literal["pld", "rdp"]
# Steps of the privacy loss grid. The coarse one is pessimistic by about 0.01% and ten times as fast.
FINE, COARSE = 1e-4, 1e-3
MAX_NOISE_MULTIPLIER = 1e4


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
    """
    fresh = noise_multiplier * math.sqrt(fresh_share)
    residual = noise_multiplier * math.sqrt(1 - fresh_share) * l2_norm_clip / (2 * feedback_l2_norm_clip)
    return dp_accounting.ComposedDpEvent(
        [
            dp_sgd_event(sampling_probability, fresh, steps, dataset_size=dataset_size, capacity=capacity),
            dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(residual), steps),
        ]
    )


def epsilon(event: dp_accounting.DpEvent, delta: float, *, accountant: Accountant = "pld", grid: float = FINE) -> float:
    """Epsilon of ``event`` at ``delta`` under adding or removing one example; ``inf`` if there is no bound.

    Args:
      event: what was done to the data.
      delta: in (0, 1).
      accountant: ``"pld"`` (tight) or ``"rdp"``.
      grid: discretisation of the privacy loss for PLD; any value gives an upper bound.

    Raises:
      ValueError: the accountant does not support the event.
    """
    if accountant == "pld":
        instance: dp_accounting.PrivacyAccountant = pld.PLDAccountant(value_discretization_interval=grid)
    else:
        instance = rdp.RdpAccountant()
    if not instance.supports(event):
        raise ValueError(f"the {accountant} accountant does not support {type(event).__name__}.")
    return float(instance.compose(event).get_epsilon(delta))


class Mechanism(NamedTuple):
    """Everything that decides what a training step costs.

    Attributes:
      dataset_size: N, treated as public.
      sampling_probability: q of the Poisson sampler.
      capacity: padded batch size.
      noise_multiplier: sigma; 0 means no noise and no guarantee.
      l2_norm_clip: C, or one norm per parameter group; its ``sensitivity_of`` is the noise's unit.
      feedback: ``"none"`` or ``"hidden"``.
      feedback_l2_norm_clip: C2 of ``"hidden"``.
    """

    dataset_size: int
    sampling_probability: float
    capacity: int
    noise_multiplier: float
    l2_norm_clip: ClipNorm = 1.0
    feedback: Literal["none", "hidden"] = "none"
    feedback_l2_norm_clip: float | None = None

    @property
    def expected_batch_size(self) -> float:
        return self.dataset_size * self.sampling_probability

    def event(self, steps: int, *, truncated: bool = True, fresh_share: float = 0.5) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps; without ``truncated``, of the plain sampler, which RDP also supports."""
        if self.noise_multiplier == 0:
            return dp_accounting.NonPrivateDpEvent()
        size: dict[str, int] = {}
        if truncated:
            size = {"dataset_size": self.dataset_size, "capacity": self.capacity}
        if self.feedback == "none":
            return dp_sgd_event(self.sampling_probability, self.noise_multiplier, steps, **size)
        assert self.feedback_l2_norm_clip is not None
        return hidden_feedback_event(
            self.sampling_probability,
            self.noise_multiplier,
            steps,
            l2_norm_clip=float(sensitivity_of(self.l2_norm_clip)),
            feedback_l2_norm_clip=self.feedback_l2_norm_clip,
            fresh_share=fresh_share,
            **size,
        )
