"""Rejection sampling of many images in parallel: each is proposed again until it is accepted."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# propose(index, attempt) -> (images, accepted), for arrays [L] of the numbers of images and of their attempts so far.
Propose = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class _Round(NamedTuple):
    """The state between two rounds of proposals: the finished images, and what each lane works on."""

    images: jax.Array
    image: jax.Array  # number of each lane's image
    attempt: jax.Array  # number of its attempts so far
    begun: jax.Array  # number of images that have been begun


def accepted_images(propose: Propose, count: int, attempts: int, lanes: int) -> jax.Array:
    """Images ``[N, ...]``, each of which is the first of its proposals that is accepted.

    Proposals are made in parallel in ``lanes``. A lane whose proposal is accepted goes on with the next image that has
    not been begun, so that no lane waits for an image that needs many attempts. The image of each number depends on
    ``propose`` only, and not on the lanes, if ``propose`` computes each lane independently of the others.

    Args:
      propose: function that makes one proposal in each lane and says, bool ``[L]``, which are accepted.
      count: number N of images.
      attempts: largest number of proposals for an image; the last one is accepted in any case.
      lanes: number L of proposals that are made in parallel.

    Examples:
      >>> wanted = lambda index, attempt: (10 * index + attempt, attempt >= index)
      >>> accepted_images(wanted, count=3, attempts=3, lanes=2)
      Array([ 0, 11, 22], dtype=int32)
    """
    shape, _ = jax.eval_shape(propose, *[jax.ShapeDtypeStruct((lanes,), jnp.int32)] * 2)
    images = jnp.zeros((count, *shape.shape[1:]), shape.dtype)

    def unfinished(state: _Round) -> jax.Array:
        return jnp.any(state.image < count)

    def one_round(state: _Round) -> _Round:
        images, index, attempt, begun = state
        proposed, accepted = propose(jnp.minimum(index, count - 1), attempt)
        accepted = accepted | (attempt == attempts - 1)
        # Rows beyond the last image, of lanes that wait and of proposals that are not accepted, are not written.
        images = images.at[jnp.where(accepted, index, count)].set(proposed, mode="drop")
        order = jnp.cumsum(accepted, dtype=jnp.int32)
        index = jnp.where(accepted, begun + order - 1, index)
        return _Round(images, index, jnp.where(accepted, 0, attempt + 1), begun + order[-1])

    lane = jnp.arange(lanes, dtype=jnp.int32)
    first = _Round(images, lane, jnp.zeros_like(lane), jnp.int32(lanes))
    return jax.lax.while_loop(unfinished, one_round, first).images
