"""Per-example gradients and their clipped sum, microbatched so that memory stays flat."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.clipped_sum import (
    ClipNorm,
    ClippedSum,
    PerExample,
    clip_gradients,
    masked_sum,
    sensitivity_of,
    squared_norm,
)
from efsgd_jax.privacy.devices import over_devices
from efsgd_jax.privacy.ghost import NoMeeting, ghost_gradients

PyTree = Any


def clipped_grad(
    loss: Callable[..., tuple[jax.Array, PyTree]],
    l2_norm_clip: ClipNorm,
    *,
    method: Literal["auto", "vmap", "ghost"] = "auto",
    microbatch_size: int | Literal["auto"] | None = "auto",
    outer_l2_norm_clip: jax.typing.ArrayLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Callable[..., ClippedSum]:
    """Turns a loss for one example into the clipped sum of its per-example gradients.

    Args:
      loss: ``loss(params, example, key) -> (scalar, aux)`` for *one* example (no batch axis anywhere).
      l2_norm_clip: see ``clip_and_sum``.
      method: ``vmap`` forms every example's whole gradient. ``ghost`` finds where in the traced loss parameters meet
        the example, and forms what it must only (``ghost_gradients``); a parameter in a loop, used twice or through a
        function of it has its gradient formed per example like ``vmap``'s, so that the result is always that of
        ``vmap``. ``clipping_plan`` says which. ``auto`` is ``ghost``, except for a loss in which no
        parameter meets the example.
      microbatch_size: examples of which gradients, or what is needed of them, exist at one time; ``None`` for all at
        once; ``"auto"`` for equal parts of at most 64 on a CPU, where small ones stay in cache and are also the
        fastest, and at most 1,024 elsewhere. Microbatches are summed in a ``lax.scan``; on several devices they are
        of each device.
      outer_l2_norm_clip: see ``clip_and_sum``.
      mesh: with an axis ``data`` over whose devices the batch is dealt; None for one device.

    Returns:
      ``f(params, batch, keys, mask=None, carried=None) -> ClippedSum`` where each leaf of ``batch`` is
      ``[B, ...]``, ``keys`` are ``[B]`` PRNG keys and ``carried`` is as for ``clip_and_sum``. ``B`` need not be a
      multiple of ``microbatch_size``.

    Formal guarantees:
      Those of ``clip_and_sum``, provided that ``loss`` sees nothing of other examples; it cannot, since it
      is mapped over the batch and has no collective axis.
    """
    per_example = _METHODS[method](loss)

    def one_microbatch(
        params: PyTree, batch: PyTree, keys: jax.Array, mask: jax.Array, carried: PyTree | None
    ) -> ClippedSum:
        return clip_gradients(
            per_example(params, batch, keys),
            l2_norm_clip,
            mask=mask,
            outer_l2_norm_clip=outer_l2_norm_clip,
            carried=carried,
        )

    def clipped(
        params: PyTree,
        batch: PyTree,
        keys: jax.Array,
        mask: jax.Array | None = None,
        carried: PyTree | None = None,
    ) -> ClippedSum:
        size = keys.shape[0]
        mask = jnp.ones(size, bool) if mask is None else mask
        at_once = _equal_parts(size) if microbatch_size == "auto" else microbatch_size
        if at_once is None or at_once >= size:
            return one_microbatch(params, batch, keys, mask, carried)

        count = -(-size // at_once)
        # Padding repeats row 0 under a False mask: real values, so that no NaN is made, and no contribution.
        rows = jnp.arange(count * at_once)
        rows = jnp.where(rows < size, rows, 0).reshape(count, at_once)
        masks = jnp.pad(mask, (0, count * at_once - size)).reshape(rows.shape)

        def add(sums: PyTree, inputs: tuple[jax.Array, jax.Array]) -> tuple[PyTree, PyTree]:
            index, keep = inputs

            def compute() -> ClippedSum:
                some, some_carried = jax.tree.map(lambda x: x[index], (batch, carried))
                return one_microbatch(params, some, keys[index], keep, some_carried)

            # Poisson batches are padded far above their mean, with the padding last: skip what is padding only.
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute))
            nothing = nothing._replace(finite=jnp.ones_like(nothing.finite))
            part = jax.lax.cond(jnp.any(keep), compute, lambda: nothing)
            sums = jax.tree.map(jnp.add, sums, (part.clipped_sum, part.outer_sum))
            return sums, (part.cut_off, part.l2_norms, part.clipped, part.losses, part.aux, part.finite)

        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
        start = (zeros, None if outer_l2_norm_clip is None else zeros)
        sums, stacked = jax.lax.scan(add, start, (rows, masks))
        per_example = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:]))[:size], stacked)
        clipped_sum, outer_sum = sums
        cut_off, l2_norms, was_clipped, losses, aux, finite = per_example
        return ClippedSum(
            clipped_sum, outer_sum, cut_off, l2_norms, was_clipped, losses, aux, finite, sensitivity_of(l2_norm_clip)
        )

    return clipped if mesh is None else over_devices(clipped, mesh)


def _equal_parts(size: int) -> int:
    """Of a batch: as few as there may be, so that few rows are padding."""
    largest = 64 if jax.default_backend() == "cpu" else 1024
    return -(-size // max(1, -(-size // largest)))


def vmap_gradients(loss: Callable[..., tuple[jax.Array, PyTree]]) -> Callable[..., PerExample]:
    """``f(params, batch, keys) -> PerExample`` of gradients that are all formed, one for each example."""
    value_and_grad = jax.vmap(jax.value_and_grad(loss, has_aux=True), in_axes=(None, 0, 0))

    def per_example(params: PyTree, batch: PyTree, keys: jax.Array) -> PerExample:
        (losses, aux), grads = value_and_grad(params, batch, keys)

        def sum_with(weights: PyTree, keep: jax.Array) -> PyTree:
            return jax.tree.map(lambda w, g: masked_sum(w, keep, g), weights, grads)

        return PerExample(losses, aux, jax.tree.map(squared_norm, grads), sum_with)

    return per_example


def _best_gradients(loss: Callable[..., tuple[jax.Array, PyTree]]) -> Callable[..., PerExample]:
    ghost, by_vmap = ghost_gradients(loss), vmap_gradients(loss)

    def per_example(params: PyTree, batch: PyTree, keys: jax.Array) -> PerExample:
        try:
            return ghost(params, batch, keys)
        except NoMeeting:
            return by_vmap(params, batch, keys)

    return per_example


_METHODS = {"auto": _best_gradients, "ghost": ghost_gradients, "vmap": vmap_gradients}
