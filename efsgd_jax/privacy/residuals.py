"""The residuals of error feedback: one for each unit (mode ``local``), or one moving average (mode ``private``).

A unit is what has a residual of its own: a record of ``DpSgdMechanism``, or a shard in methods with shards.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.clipped_sum import ClipNorm, sensitivity_of

PyTree = Any


def init_units(params: PyTree, num_units: int, kind: Literal["scalar", "vector"], l2_norm_clip: ClipNorm) -> PyTree:
    """Residuals of zero for N = ``num_units`` units.

    Args:
      params: the parameters.
      num_units: N.
      kind: ``"scalar"`` for one number per unit, ``"vector"`` for one gradient per unit.
      l2_norm_clip: C, or one clip norm per parameter group.

    Returns:
      For ``"scalar"``, float32 ``[N]``, or such an array for each group. For ``"vector"``, ``[N, ...]`` for each
      parameter, in float32 or wider.
    """
    if kind == "vector":
        return jax.tree.map(lambda p: jnp.zeros((num_units, *p.shape), jnp.promote_types(p.dtype, jnp.float32)), params)
    if isinstance(l2_norm_clip, Mapping):
        return {k: jnp.zeros(num_units) for k in l2_norm_clip}
    return jnp.zeros(num_units)


def unit_lengths(residual: PyTree, indices: jax.Array) -> PyTree:
    """The scalar residuals of the units of a batch: the argument ``carried`` of ``clipped_grad``'s result.

    Args:
      residual: the field ``residual`` of an ``ErrorFeedbackState`` of mode ``local``.
      indices: int ``[B]``, the unit of each row of the batch.

    Returns:
      float32 ``[B]``, or such an array for each parameter group.
    """
    return jax.tree.map(lambda r: r[indices], residual)


units_of = unit_lengths  # for vector residuals, where each row is a gradient


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
    """Writes ``decay * clip(clipping excess, bound)`` to the residuals of the units that contributed to the batch.

    Args:
      residual: the residuals of all units.
      indices: int ``[B]``, the unit of each row of the batch.
      kept: bool ``[B]``; rows that are False (padding, or a gradient that is zero or not finite) leave the residual of
        their unit unchanged.
      stretched: for vector residuals, the sums ``g_i + r_i`` of gradient and residual before clipping, each leaf
        ``[B, ...]``; None for scalar ones.
      clipping_excess: the field of that name of the ``ClippedSum``.
      l2_norm_clip: C, or one clip norm per parameter group.
      bound: D, the bound on the joint norm; with groups, that of a group is the same multiple of its C_m.
      decay: a.
    """
    num_units = jax.tree.leaves(residual)[0].shape[0]
    rows = jnp.where(kept, indices, num_units)  # writes to num_units, which is out of bounds, are dropped
    sensitivity = sensitivity_of(l2_norm_clip)

    def store(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[rows].set(new.astype(old.dtype), mode="drop")

    def scalar(old: jax.Array, cut: jax.Array, clip: jax.typing.ArrayLike) -> jax.Array:
        return store(old, jnp.asarray(decay * jnp.minimum(cut, bound * clip / sensitivity)))

    def vector(old: PyTree, cut: jax.Array, clip: jax.typing.ArrayLike, grads: PyTree) -> PyTree:
        # A gradient with the clipping excess `cut` had the norm `cut + C`.
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
    """``a * average + (1 - a) * new``, with a = ``decay``."""
    return jax.tree.map(lambda old, x: decay * old + (1 - decay) * x, average, new)
