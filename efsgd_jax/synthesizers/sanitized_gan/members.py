"""A stack of members that are alike: one pytree, leading axis K, of which some are trained and others asked."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
# Members that an accelerator works on at one time; bounds the memory of activations.
CHUNK = 128


def over_members(f: Callable[..., PyTree], *trees: PyTree, batched: bool | None = None) -> PyTree:
    """``[f(member) for member in stack]`` as one compiled operation.

    ``vmap`` is what an accelerator likes and a CPU does not: there the members are looped over inside of the program,
    which is as fast as a loop in Python within a few percent (``benchmarks/members.py``).

    Args:
      f: of one member's part of each of ``trees``.
      trees: pytrees whose leaves have a leading axis of the same length.
      batched: True for ``vmap``, in chunks; None for whatever suits the backend.
    """
    if batched is None:
        batched = jax.default_backend() != "cpu"
    return jax.lax.map(lambda xs: f(*xs), trees, batch_size=CHUNK if batched else None)


def take(stack: PyTree, members: jax.Array) -> PyTree:
    """Members ``[M]`` of a stack, or one of them for a scalar."""
    return jax.tree.map(lambda x: x[members], stack)


def put(stack: PyTree, members: jax.Array, new: PyTree, keep: jax.Array) -> PyTree:
    """The stack with ``new`` in the place of ``members``, where ``keep`` bool ``[M]`` is True."""
    rows = jnp.where(keep, members, jax.tree.leaves(stack)[0].shape[0])  # out of bounds: dropped
    return jax.tree.map(lambda x, n: x.at[rows].set(n, mode="drop"), stack, new)
