"""The releases of private SMOTE: a mean of all rows, and then noisy steps of k-means in each label."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy import FullBatchMechanism, PlannedPhase, SumAccess, VectorSum

# Part of the budget for the mean of all rows, about which the centres are sought.
MEAN_SHARE = 0.1
# What a row adds to its centre's count, relative to the clip norm of its difference.
COUNT_LENGTH = 0.25


class Record(NamedTuple):
    """Private rows.

    Attributes:
      x: float32 ``[N, D]`` in [0, 1].
      label: int32 ``[N]``. A blank row, which contributes nothing, has label -1 and x = 1/2.
    """

    x: jax.Array
    label: jax.Array


class Released(NamedTuple):
    """All that was released; it may be published.

    Attributes:
      total: float32 ``[D]``, the sum of ``x - 1/2``, with noise.
      sums: float32 ``[T, K M, D]``, for each step and each of M centres of K labels the sum of its rows' differences.
      counts: float32 ``[T, K M]``, the numbers of its rows.
      stds: float32 ``[1 + T]``, the standard deviation of the noise of ``total``, and of each step's sums. That of the
        counts is larger, by one over the weight of a count, which is ``COUNT_LENGTH`` times the clip norm.
      centres: float32 ``[K, M, D]`` in [0, 1], after the last step.
    """

    total: jax.Array
    sums: jax.Array
    counts: jax.Array
    stds: jax.Array
    centres: jax.Array


def planned(dataset_size: int, steps: int) -> tuple[PlannedPhase, PlannedPhase]:
    """The two phases, of one budget, without noise yet: ``calibrate_plan`` solves for it."""
    return (
        PlannedPhase("mean", FullBatchMechanism(dataset_size, 0.0, MEAN_SHARE, 1), 1),
        PlannedPhase("centres", FullBatchMechanism(dataset_size, 0.0, 1 - MEAN_SHARE, steps), steps),
    )


def release_centres(
    phases: tuple[PlannedPhase, ...], records: Record, starts: jax.Array, key: jax.Array, *, l2_norm_clip: float
) -> Released:
    """All releases of a fit, within one compiled program.

    Args:
      phases: as ``planned`` gives them, with noise.
      records: the private rows.
      starts: float ``[K, M, D]``, the public differences of the first centres from the mean.
      key: typed PRNG key of all noise, secret and used once.
      l2_norm_clip: clip norm of a row's difference from the mean.

    Formal guarantees:
      The event is that of ``Composition(phases)``, for one row that is replaced by a blank one. Each phase is opened
      once for each of its steps, with its own mechanism, and a step has one release, of the whole share. What a row
      adds to it is a function of this row and of what was released before, clipped in the release (``SumAccess``).
    """
    mean, later = phases
    n, (kinds, count, width) = len(records.label), starts.shape
    whole = VectorSum(lambda r: r.x - 0.5, 0.5 * width**0.5)
    (total,), std = _opened(mean, records, key, 0).release([whole])
    middle = jnp.clip(0.5 + total[0] / n, 0.0, 1.0)

    at, weight = middle + starts, COUNT_LENGTH * l2_norm_clip
    found, stds = [], [std]
    for step in range(later.steps):
        member = VectorSum(lambda r: r.x - middle, l2_norm_clip, weight)

        def nearest(r: Record, at: jax.Array = at) -> jax.Array:
            distances = jnp.sum(jnp.square(at[r.label] - r.x), axis=1)
            return (r.label * count + jnp.argmin(distances)).astype(jnp.int32)

        access = _opened(later, records, key, 1 + step)
        ((sums, counts),), std = access.release([member], group=nearest, num_groups=kinds * count)
        # A count that is mostly noise would throw its centre far out: it is moved to the mean instead.
        least = 2 * std / weight + 1
        at = jnp.clip(middle + (sums / jnp.maximum(counts, least)[:, None]).reshape(at.shape), 0.0, 1.0)
        found.append((sums, counts))
        stds.append(std)
    sums, counts = (jnp.stack(x) for x in zip(*found, strict=True))
    return Released(total[0], sums, counts, jnp.asarray(stds, jnp.float32), at)


def _opened(phase: PlannedPhase, records: Record, key: jax.Array, release: int) -> SumAccess:
    """The access of the ``release``-th of all releases, which no two share a key for."""
    assert isinstance(phase.mechanism, FullBatchMechanism)
    return phase.mechanism.open(records, jax.random.fold_in(key, release), jnp.zeros((), jnp.int32))
