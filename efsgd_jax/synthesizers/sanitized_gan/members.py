"""Operations on a stack of members: one pytree with leading axis K that holds the networks of K shards."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
# Largest number of members that an accelerator processes in parallel, which bounds the memory for activations.
CHUNK = 128


def over_members(f: Callable[..., PyTree], *trees: PyTree, batched: bool | None = None) -> PyTree:
    """Computes ``[f(member) for member in stack]`` as one compiled operation.

    Accelerators are fastest with ``vmap``, CPUs with a loop over the members. The loop is part of the compiled program;
    it is as fast as a loop in Python within a few percent (``benchmarks/members.py``).

    Args:
      f: function of one member's part of each of ``trees``.
      trees: pytrees whose leaves have a leading axis of the same size.
      batched: True for ``vmap`` in chunks of ``CHUNK``, False for a loop; None for a loop on CPUs and ``vmap``
        elsewhere.
    """
    if batched is None:
        batched = jax.default_backend() != "cpu"
    return jax.lax.map(lambda xs: f(*xs), trees, batch_size=CHUNK if batched else None)


def take(stack: PyTree, members: jax.Array) -> PyTree:
    """The members of a stack with the indices ``members`` ``[M]``; a single one if ``members`` is a scalar."""
    return jax.tree.map(lambda x: x[members], stack)


def put(stack: PyTree, members: jax.Array, new: PyTree, keep: jax.Array) -> PyTree:
    """The stack with ``new`` in the place of those ``members`` for which ``keep``, bool ``[M]``, is True."""
    rows = jnp.where(keep, members, jax.tree.leaves(stack)[0].shape[0])  # indices out of bounds are dropped
    return jax.tree.map(lambda x, n: x.at[rows].set(n, mode="drop"), stack, new)
