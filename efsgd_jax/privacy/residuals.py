"""The residuals of error feedback: one for each unit (mode ``local``), or a low-pass filter (mode ``private``)."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.clipped_sum import ClipNorm, sensitivity_of

PyTree = Any


def init_units(params: PyTree, num_units: int, kind: Literal["scalar", "vector"], l2_norm_clip: ClipNorm) -> PyTree:
    """Zeros: float32 ``[N]`` (``scalar``; one for each group of clip norms), or ``[N, ...]`` for each parameter."""
    if kind == "vector":
        return jax.tree.map(lambda p: jnp.zeros((num_units, *p.shape), jnp.promote_types(p.dtype, jnp.float32)), params)
    if isinstance(l2_norm_clip, Mapping):
        return {k: jnp.zeros(num_units) for k in l2_norm_clip}
    return jnp.zeros(num_units)


def unit_lengths(residual: PyTree, indices: jax.Array) -> PyTree:
    """The scalar residuals of a batch's units, as ``clipped_grad`` takes them for ``carried``.

    Args:
      residual: of an ``ErrorFeedbackState`` of mode ``local``.
      indices: int ``[B]``.

    Returns:
      float32 ``[B]``, or that for each group.
    """
    return jax.tree.map(lambda r: r[indices], residual)


units_of = unit_lengths  # of vector residuals: the same rows, longer


def update_units(
    residual: PyTree,
    indices: jax.Array,
    kept: jax.Array,
    stretched: PyTree | None,
    clipping_excess: PyTree,
    l2_norm_clip: ClipNorm,
    bound: jax.typing.ArrayLike,
    decay: jax.typing.ArrayLike,
) -> PyTree:
    """Writes ``decay * clip(what was cut off, bound)`` back to the rows that contributed.

    Args:
      residual: of all units.
      indices: int ``[B]``.
      kept: bool ``[B]``; False rows (padding, NaN) leave their unit's residual as it was.
      stretched: for vector residuals, the gradients with their residuals added, each leaf ``[B, ...]``.
      clipping_excess: from ``clip_and_sum``.
      l2_norm_clip: C.
      bound: D, on the joint norm; groups get the same multiple of their C_m.
      decay: a.
    """
    num_units = jax.tree.leaves(residual)[0].shape[0]
    rows = jnp.where(kept, indices, num_units)  # out of bounds: dropped
    sensitivity = sensitivity_of(l2_norm_clip)

    def store(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[rows].set(new.astype(old.dtype), mode="drop")

    def scalar(old: jax.Array, cut: jax.Array, clip: jax.typing.ArrayLike) -> jax.Array:
        return store(old, jnp.asarray(decay * jnp.minimum(cut, bound * clip / sensitivity)))

    def vector(old: PyTree, cut: jax.Array, clip: jax.typing.ArrayLike, grads: PyTree) -> PyTree:
        # A gradient that lost `cut` was `cut + C` long.
        factor = decay * jnp.minimum(cut, bound * clip / sensitivity) / (cut + clip)
        factor = jnp.where(kept, factor, 0.0)

        def one(o: jax.Array, g: jax.Array) -> jax.Array:
            shape = (-1,) + (1,) * (g.ndim - 1)
            return store(o, factor.reshape(shape) * jnp.where(kept.reshape(shape), g, 0))

        return jax.tree.map(one, old, grads)

    update: Callable[..., PyTree] = scalar if stretched is None else vector
    trees = [residual, clipping_excess] + ([] if stretched is None else [stretched])
    if not isinstance(l2_norm_clip, Mapping):
        return update(*trees[:2], l2_norm_clip, *trees[2:])
    return {k: update(residual[k], clipping_excess[k], c, *(t[k] for t in trees[2:])) for k, c in l2_norm_clip.items()}


def decayed(average: PyTree, new: PyTree, decay: jax.typing.ArrayLike) -> PyTree:
    """``a * average + (1 - a) * new``."""
    return jax.tree.map(lambda old, x: decay * old + (1 - decay) * x, average, new)
