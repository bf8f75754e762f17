"""Per-example gradients and their clipped sum, by ``vmap``, microbatched so that memory stays flat."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any
ClipNorm = jax.typing.ArrayLike | Mapping[str, float]


class ClippedSum(NamedTuple):
    """A clipped sum of per-example gradients and what is guaranteed about it.

    Attributes:
      clipped_sum: pytree like the parameters, ``sum_i clip(g_i, C)``, at least float32.
      raw_sum: the same without clipping, ``sum_i g_i`` (error feedback needs it), or None.
      l2_norms: float32 ``[B]``, the norm of each gradient before clipping; 0 where masked out or not finite.
      losses: float32 ``[B]``, 0 where masked out.
      aux: what the loss returned beside its value, each leaf with a leading ``[B]`` axis; 0 where masked out.
      finite: bool ``[B]``, False where a gradient had a NaN or an infinite norm (its contribution is 0).
      sensitivity: the largest L2 norm one example can add to ``clipped_sum``.
    """

    clipped_sum: PyTree
    raw_sum: PyTree | None
    l2_norms: jax.Array
    losses: jax.Array
    aux: PyTree
    finite: jax.Array
    sensitivity: jax.Array


def sensitivity_of(l2_norm_clip: ClipNorm) -> jax.Array:
    """L2 sensitivity of a clipped sum: ``C``, or ``sqrt(sum_m C_m^2)`` for one norm per parameter group."""
    if isinstance(l2_norm_clip, Mapping):
        return jnp.sqrt(sum(jnp.square(jnp.asarray(c, jnp.float32)) for c in l2_norm_clip.values()))
    return jnp.asarray(l2_norm_clip, jnp.float32)


def _clip_factors(grads: PyTree, l2_norm_clip: jax.typing.ArrayLike, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    squares = [
        jnp.sum(jnp.square(g.astype(jnp.float32)).reshape(g.shape[0], -1), axis=1) for g in jax.tree.leaves(grads)
    ]
    norms = jnp.sqrt(sum(squares, jnp.zeros(mask.shape, jnp.float32)))
    # C / max(C, norm) is min(1, C / norm) without 0 / 0; an infinite C means "do not clip".
    factors = jnp.where(jnp.isinf(l2_norm_clip), 1.0, l2_norm_clip / jnp.maximum(norms, l2_norm_clip))
    return norms, factors


def _masked_sum(weights: jax.Array, keep: jax.Array, leaf: jax.Array) -> jax.Array:
    # The select comes before the product: 0 * NaN would be NaN and one bad example would poison the sum.
    kept = jnp.where(keep.reshape((-1,) + (1,) * (leaf.ndim - 1)), leaf, 0)
    return jnp.tensordot(weights, kept.astype(jnp.promote_types(leaf.dtype, jnp.float32)), axes=1)


def clip_and_sum(
    per_example_grads: PyTree,
    l2_norm_clip: ClipNorm,
    *,
    mask: jax.Array | None = None,
    keep_raw_sum: bool = False,
) -> ClippedSum:
    """``sum_i mask_i * g_i * min(1, C / ||g_i||)`` of gradients that have a leading example axis.

    Args:
      per_example_grads: pytree; every leaf ``[B, ...]`` with the same ``B``.
      l2_norm_clip: ``C > 0`` for the joint norm over all leaves; or a mapping from each top-level key of
        ``per_example_grads`` to that group's ``C_m``, for a joint sensitivity of ``sqrt(sum_m C_m^2)``.
      mask: bool ``[B]``; False rows (padding) contribute nothing. None keeps all.
      keep_raw_sum: also return the sum of the unclipped gradients.

    Returns:
      A ``ClippedSum``; its losses and aux are empty.

    Raises:
      ValueError: the leaves do not share one leading axis, or a mapping whose keys are not the groups'.

    Formal guarantees:
      Adding or removing one row (or flipping its mask) changes ``clipped_sum`` by at most ``sensitivity`` in
      L2 norm, up to float32 rounding, whatever the gradients are: a gradient that is not finite, in any leaf,
      contributes exactly zero to ``clipped_sum`` and ``raw_sum``. ``raw_sum``, ``l2_norms``, ``losses``
      and ``aux`` have no such bound; they are private.
    """
    leaves = jax.tree.leaves(per_example_grads)
    if not leaves or any(jnp.ndim(g) < 1 or g.shape[0] != leaves[0].shape[0] for g in leaves):
        raise ValueError(
            "per-example gradients must all have the same leading example axis; got shapes "
            f"{[jnp.shape(g) for g in leaves]}. Averaged gradients cannot be clipped per example: "
            "use jax.vmap(jax.grad(loss), in_axes=(None, 0))."
        )
    batch = leaves[0].shape[0]
    mask = jnp.ones(batch, bool) if mask is None else jnp.asarray(mask, bool)
    if mask.shape != (batch,):
        raise ValueError(f"mask has shape {mask.shape}; the gradients have {batch} examples.")

    if isinstance(l2_norm_clip, Mapping):
        if set(l2_norm_clip) != set(per_example_grads):
            raise ValueError(
                f"l2_norm_clip names the groups {sorted(l2_norm_clip)}; the gradients have {sorted(per_example_grads)}."
            )
        factors: Any
        per_group = {k: _clip_factors(g, l2_norm_clip[k], mask) for k, g in per_example_grads.items()}
        norms = jnp.sqrt(sum(jnp.square(n) for n, _ in per_group.values()))
        factors = {k: f for k, (_, f) in per_group.items()}
    else:
        norms, factors = _clip_factors(per_example_grads, l2_norm_clip, mask)
    finite = jnp.isfinite(norms)
    keep = mask & finite

    def weighted_sum(factor: jax.Array, tree: PyTree) -> PyTree:
        weights = jnp.where(keep, factor, 0.0)
        return jax.tree.map(lambda g: _masked_sum(weights, keep, g), tree)

    if isinstance(factors, dict):
        clipped = {k: weighted_sum(factors[k], g) for k, g in per_example_grads.items()}
    else:
        clipped = weighted_sum(factors, per_example_grads)
    raw = weighted_sum(jnp.ones(batch), per_example_grads) if keep_raw_sum else None
    return ClippedSum(
        clipped_sum=clipped,
        raw_sum=raw,
        l2_norms=jnp.where(keep, norms, 0.0),
        losses=jnp.zeros(batch),
        aux=None,
        finite=finite | ~mask,
        sensitivity=sensitivity_of(l2_norm_clip),
    )


def clipped_grad(
    loss: Callable[..., tuple[jax.Array, PyTree]],
    l2_norm_clip: ClipNorm,
    *,
    microbatch_size: int | None = None,
    keep_raw_sum: bool = False,
) -> Callable[..., ClippedSum]:
    """Turns a loss for one example into the clipped sum of its per-example gradients.

    Args:
      loss: ``loss(params, example, key) -> (scalar, aux)`` for *one* example (no batch axis anywhere).
      l2_norm_clip: see ``clip_and_sum``.
      microbatch_size: examples whose gradients exist at one time; None for all at once. Microbatches are
        summed in a ``lax.scan``; on a CPU small ones (32) are also the fastest, because they stay in cache.
      keep_raw_sum: see ``clip_and_sum``.

    Returns:
      ``f(params, batch, keys, mask=None) -> ClippedSum`` where each leaf of ``batch`` is ``[B, ...]`` and
      ``keys`` are ``[B]`` PRNG keys. ``B`` need not be a multiple of ``microbatch_size``.

    Formal guarantees:
      Those of ``clip_and_sum``, provided that ``loss`` sees nothing of other examples; it cannot, since it
      is mapped over the batch and has no collective axis.
    """
    grads_of = jax.vmap(jax.value_and_grad(loss, has_aux=True), in_axes=(None, 0, 0))

    def one_microbatch(params: PyTree, batch: PyTree, keys: jax.Array, mask: jax.Array) -> ClippedSum:
        (losses, aux), grads = grads_of(params, batch, keys)
        clipped = clip_and_sum(grads, l2_norm_clip, mask=mask, keep_raw_sum=keep_raw_sum)
        losses, aux = jax.tree.map(
            lambda x: jnp.where(mask.reshape((-1,) + (1,) * (x.ndim - 1)), x, jnp.zeros_like(x)), (losses, aux)
        )
        return clipped._replace(losses=losses, aux=aux)

    def clipped(params: PyTree, batch: PyTree, keys: jax.Array, mask: jax.Array | None = None) -> ClippedSum:
        size = keys.shape[0]
        mask = jnp.ones(size, bool) if mask is None else mask
        if microbatch_size is None or microbatch_size >= size:
            return one_microbatch(params, batch, keys, mask)

        count = -(-size // microbatch_size)
        # Padding repeats row 0 under a False mask: real values, so that no NaN is made, and no contribution.
        rows = jnp.arange(count * microbatch_size)
        rows = jnp.where(rows < size, rows, 0).reshape(count, microbatch_size)
        masks = jnp.pad(mask, (0, count * microbatch_size - size)).reshape(rows.shape)

        def add(sums: PyTree, inputs: tuple[jax.Array, jax.Array]) -> tuple[PyTree, PyTree]:
            index, keep = inputs

            def compute() -> ClippedSum:
                return one_microbatch(params, jax.tree.map(lambda x: x[index], batch), keys[index], keep)

            # Poisson batches are padded far above their mean, with the padding last: skip what is padding only.
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute))
            nothing = nothing._replace(finite=jnp.ones_like(nothing.finite))
            part = jax.lax.cond(jnp.any(keep), compute, lambda: nothing)
            sums = jax.tree.map(jnp.add, sums, (part.clipped_sum, part.raw_sum))
            return sums, (part.l2_norms, part.losses, part.aux, part.finite)

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
        start = (zeros, zeros if keep_raw_sum else None)
        (clipped_sum, raw_sum), stacked = jax.lax.scan(add, start, (rows, masks))
        l2_norms, losses, aux, finite = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:]))[:size], stacked)
        return ClippedSum(clipped_sum, raw_sum, l2_norms, losses, aux, finite, sensitivity_of(l2_norm_clip))

    return clipped


def clip_by_norm(tree: PyTree, l2_norm: jax.typing.ArrayLike) -> PyTree:
    """``tree * min(1, l2_norm / ||tree||)``; zero if the tree's norm is not finite."""
    norm = optax.tree.norm(tree)
    factor = jnp.where(jnp.isinf(l2_norm), 1.0, l2_norm / jnp.maximum(norm, l2_norm))
    return jax.tree.map(lambda x: jnp.where(jnp.isfinite(norm), factor * x, 0.0), tree)
