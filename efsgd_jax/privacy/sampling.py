"""Poisson batches of a fixed, padded shape."""

import math

import jax
import jax.numpy as jnp
from scipy import stats

from efsgd_jax.privacy.checks import check_probability


def sample_capacity(
    dataset_size: int, sampling_probability: float, *, multiple_of: int = 1, overflow_probability: float | None = None
) -> int:
    """A padded batch size that a Poisson batch of expected size ``q * N`` practically never exceeds.

    The bound is six standard deviations above the mean, but at most ``N``. The result is the bound, rounded up to a
    multiple of ``multiple_of`` (which may be above N), or the bound itself if it is below ``multiple_of``. The
    accounting includes the truncation of batches that exceed the result: see ``dp_sgd_event``.

    Args:
      dataset_size: N.
      sampling_probability: q in (0, 1].
      multiple_of: the number of which the result is a multiple, such as the number of devices.
      overflow_probability: if given, the result is so large that a batch exceeds it with at most this probability.
        With ``local`` feedback it is 1e-25, since its event does not include truncation.

    Raises:
      ValueError: q is not in (0, 1].

    Examples:
      >>> 512 < sample_capacity(60_000, 512 / 60_000) < 700
      True
    """
    check_probability(sampling_probability)
    mean = dataset_size * sampling_probability
    bound = math.ceil(mean + 6 * math.sqrt(mean * (1 - sampling_probability))) + 1
    if overflow_probability is not None:
        while stats.binom.sf(bound, dataset_size, sampling_probability) > overflow_probability:
            bound = math.ceil(1.02 * bound)
    bound = min(dataset_size, bound)
    return bound if multiple_of > bound else -(-bound // multiple_of) * multiple_of


def poisson_batch(
    key: jax.Array, dataset_size: int, sampling_probability: float, capacity: int
) -> tuple[jax.Array, jax.Array]:
    """Samples each of N examples independently with probability q; the batch is padded to a fixed shape.

    Args:
      key: typed PRNG key, secret and used once.
      dataset_size: N.
      sampling_probability: q in (0, 1].
      capacity: number of rows of the result.

    Returns:
      ``(indices, mask)``: int32 ``[capacity]`` in ``0..N-1`` and bool ``[capacity]``, False on padding. If more
      than ``capacity`` examples were sampled, a uniformly random subset of them is kept.

    Raises:
      ValueError: q is not in (0, 1].

    Formal guarantees:
      Participation is independent across examples with probability ``floor(q * 2^32) / 2^32 <= q`` (32 random
      bits against a threshold; float32 uniforms would round q by up to 1e-7). With truncation it is the
      sampling of ``dp_accounting.TruncatedSubsampledGaussianDpEvent`` (arXiv 2508.15089), but for ties: in a batch
      that exceeds ``capacity``, an example whose 32 bits equal those of the last one that is kept (probability 2^-32)
      is kept or not by its index.
      Amplification holds only while it stays secret which examples were sampled.

    Examples:
      >>> rows, mask = poisson_batch(jax.random.key(5), 1000, 0.1, capacity=160)
      >>> rows.shape, bool(60 < mask.sum() < 140)
      ((160,), True)
    """
    check_probability(sampling_probability)
    bits = jax.random.bits(key, (dataset_size,), jnp.uint32)
    # The examples with the `capacity` smallest values. If the values of more examples are below the threshold, these
    # are a uniformly random subset of them.
    flipped, indices = jax.lax.top_k(~bits, min(capacity, dataset_size))
    if sampling_probability >= 1.0:
        mask = jnp.ones(indices.shape, bool)
    else:
        mask = ~flipped < jnp.uint32(math.floor(sampling_probability * 2**32))
    missing = capacity - indices.shape[0]
    return jnp.pad(indices, (0, max(missing, 0))), jnp.pad(mask, (0, max(missing, 0)))
