"""The ``DpEvent`` of steps of DP-SGD, with and without error feedback."""

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
    """The event of DP-SGD (the transform with ``feedback="none"``): ``Poisson(q, Gaussian(sigma))``, ``steps`` times.

    Args:
      sampling_probability: q, the probability of each example to be in a batch.
      noise_multiplier: sigma, the standard deviation of the noise over the sensitivity of the sum.
      steps: T, the number of steps.
      dataset_size: N; if given together with ``capacity``, batches are truncated to ``capacity`` examples.
      capacity: the padded batch size of ``poisson_batch``.

    Returns:
      The event. If truncation cannot happen (``capacity >= N``), it is that of plain Poisson sampling.

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
    """The event of the transform with ``feedback="hidden"``, without any assumption on the gradients.

    The noise has variance ``(sigma C1)^2``, with C1 = ``l2_norm_clip`` and C2 = ``feedback_l2_norm_clip``. In the
    analysis the share ``fresh_share`` of the variance covers the examples sampled in the step, and the remaining
    variance covers the residual.

    Args:
      sampling_probability: see ``dp_sgd_event``.
      noise_multiplier: see ``dp_sgd_event``.
      steps: see ``dp_sgd_event``.
      l2_norm_clip: C1, the clip norm of the gradients; with groups, the joint sensitivity.
      feedback_l2_norm_clip: C2, the clip norm of the residual.
      fresh_share: the share of the variance for the examples sampled in the step, in (0, 1).
      dataset_size: see ``dp_sgd_event``.
      capacity: see ``dp_sgd_event``.

    Formal guarantees:
      Given what was released before, an example that is added or removed changes the sum of step t in two ways. If it
      is sampled at t, it adds its own clipped gradient, of norm at most C1. Once it was ever sampled, it changes
      ``clip(e, C2)`` by at most ``2 C2``, at every later step and without amplification. The sum of two independent
      Gaussians is a Gaussian. Hence the step is the composition of ``Poisson(q, Gaussian(sigma_a))`` with
      ``Gaussian(sigma_b)``, where ``sigma_a = sigma sqrt(share)`` and
      ``sigma_b = sigma sqrt(1 - share) C1 / (2 C2)``. This holds for every share.

    Examples:
      >>> event = hidden_feedback_event(0.01, 1.0, 500, l2_norm_clip=1.0, feedback_l2_norm_clip=0.1, fresh_share=0.5)
      >>> len(event.events)
      2
    """
    fresh = noise_multiplier * math.sqrt(fresh_share)
    residual = noise_multiplier * math.sqrt(1 - fresh_share) * l2_norm_clip / (2 * feedback_l2_norm_clip)
    events = [dp_sgd_event(sampling_probability, fresh, steps, dataset_size=dataset_size, capacity=capacity)]
    if steps > 1:  # in the first step the residual is still zero
        events.append(gaussian_event(residual, steps - 1))
    return dp_accounting.ComposedDpEvent(events)
