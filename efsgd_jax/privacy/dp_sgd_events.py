"""What steps of DP-SGD do to the data, with and without error feedback, as a ``DpEvent``."""

import math

import dp_accounting

from efsgd_jax.privacy.accounting import gaussian_event


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
