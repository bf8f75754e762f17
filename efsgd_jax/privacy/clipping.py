"""Per-example gradients and their clipped sum, in microbatches, so that memory does not grow with the batch."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.checks import check_batch, check_clip_norm, check_leaves, check_microbatch_size, checked_loss
from efsgd_jax.privacy.clipped_sum import (
    ClipNorm,
    ClippedSum,
    PerExample,
    as_number,
    clip_gradients,
    masked_sum,
    sensitivity_of,
    squared_norm,
)
from efsgd_jax.privacy.dataflow import HiddenFlowError
from efsgd_jax.privacy.devices import over_devices
from efsgd_jax.privacy.ghost import ExampleIndependentLossError, ghost_gradients
from efsgd_jax.privacy.rounding import compensated, margin, round_once
from efsgd_jax.privacy.varying import axes_of, varying_like, zeros_like

PyTree = Any
# The fields of a ``ClippedSum`` that are not per example.
SUMMED = ("clipped_sum", "outer_sum", "sensitivity", "outer_l2_norm_clip")


def clipped_grad(
    loss: Callable[..., tuple[jax.Array, PyTree]],
    l2_norm_clip: ClipNorm,
    *,
    method: Literal["auto", "vmap", "ghost"] = "auto",
    microbatch_size: int | Literal["auto"] | None = "auto",
    outer_l2_norm_clip: jax.typing.ArrayLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
    fetch: Callable[[PyTree], PyTree] | None = None,
) -> Callable[..., ClippedSum]:
    """Turns a loss for one example into the clipped sum of its per-example gradients.

    Args:
      loss: ``loss(params, example, key) -> (scalar, aux)`` for *one* example (no batch axis anywhere).
      l2_norm_clip: see ``clip_and_sum``.
      method: ``vmap`` forms every per-example gradient. ``ghost`` finds the equations of the traced loss that combine
        parameters with example data, and forms only those per-example gradients that it must (``ghost_gradients``).
        The gradient of a parameter that is in a loop, is used twice or is used through a function of it is formed for
        each example as by ``vmap``, so that the result is always that of ``vmap``. ``clipping_plan`` lists what is done
        for each parameter. ``auto`` is ``ghost``, except that it is ``vmap`` for a loss that does not depend on the
        example, or that has effects, such as a mutable reference.
      microbatch_size: number of examples whose gradients (or, with ``ghost``, whose activations and cotangents) exist
        at one time. ``None`` is for the whole batch at once. ``"auto"`` is for equal parts of at most 64 on a CPU,
        where small parts stay in the cache and are also the fastest, and at most 1,024 elsewhere. Microbatches are
        summed in a ``lax.scan``; on several devices each device divides its own rows.
      outer_l2_norm_clip: see ``clip_and_sum``.
      mesh: mesh with an axis ``data``, among whose devices the batch is divided; None if a single device is used.
      fetch: ``fetch(rows) -> examples`` for a batch that names its examples, such as by their place in a file; it is
        called with what one device has of the batch. None if the batch holds the examples.

    Raises:
      ValueError: an unknown method, a ``microbatch_size`` below 1, a clip norm that is negative or NaN, a mesh without
        an axis ``data``; and when the result is called: batch, keys, mask and carried norms with different numbers of
        rows, parameters that are not real floating-point numbers, a loss that does not return one such number and an
        aux; and with ``ghost`` a loss that does not depend on the example or that has effects.

    Returns:
      ``f(params, batch, keys, mask=None, carried=None) -> ClippedSum`` where each leaf of ``batch`` is
      ``[B, ...]``, ``keys`` are ``[B]`` PRNG keys, and ``mask`` and ``carried`` are as for ``clip_and_sum``. ``B``
      need not be a multiple of ``microbatch_size``.

    Formal guarantees:
      Those of ``clip_and_sum``, provided that ``loss`` reads nothing of other examples. By its arguments it cannot,
      since it is mapped over the batch and has no collective axis; it must not by a closure over the batch either.
      ``aux`` is as private as the examples: statistics of a batch in it must not reach the model. Inside of
      ``jax.shard_map`` each device clips its own rows.

    Examples:
      >>> def loss(params, example, key):
      ...     x, y = example
      ...     return (x @ params["w"] - y) ** 2, None
      >>> x, y = jnp.ones((4, 3)), jnp.zeros(4)
      >>> keys = jax.random.split(jax.random.key(1), 4)
      >>> total = clipped_grad(loss, 1.0)({"w": jnp.ones(3)}, (x, y), keys)
      >>> bool(jnp.linalg.norm(total.clipped_sum["w"]) <= 4.0)
      True
    """
    if method not in _METHODS:
        raise ValueError(f"method is {method!r}; it is one of {', '.join(_METHODS)}.")
    check_microbatch_size(microbatch_size)
    check_clip_norm(l2_norm_clip, outer_l2_norm_clip)
    per_example = _METHODS[method](checked_loss(loss))

    def clipped(
        params: PyTree,
        batch: PyTree,
        keys: jax.Array,
        mask: jax.Array | None = None,
        carried: PyTree | None = None,
        whole: int | None = None,  # number of rows on all devices together, if ``mesh`` is given
    ) -> ClippedSum:
        size = check_batch(batch, keys, mask, carried)
        batch = jax.tree.map(jnp.asarray, fetch(batch) if fetch else batch)
        params = varying_like(jax.tree.map(jnp.asarray, params), (batch, keys))
        check_leaves(params, "the parameters")
        mask = jnp.ones(size, bool) if mask is None else jnp.asarray(mask)
        at_once = _equal_parts(size) if microbatch_size == "auto" else microbatch_size
        at_once = max(1, min(size, at_once or size))
        # Inside of a caller's own ``jax.shard_map``, the margin also covers the sum over its devices.
        parts = math.prod(jax.lax.axis_size(axis) for axis in axes_of((batch, keys)))
        slack = margin(params, whole or parts * size)

        def one_microbatch(batch: PyTree, keys: jax.Array, mask: jax.Array, carried: PyTree | None) -> ClippedSum:
            return clip_gradients(
                per_example(params, batch, keys),
                l2_norm_clip,
                slack,
                mask=mask,
                outer_l2_norm_clip=outer_l2_norm_clip,
                carried=carried,
            )

        if at_once >= size:
            return one_microbatch(batch, keys, mask, carried)

        count = -(-size // at_once)
        # Padding repeats row 0 under a False mask: it contributes nothing, and real values cause no NaN.
        rows = jnp.arange(count * at_once)
        rows = jnp.where(rows < size, rows, 0).reshape(count, at_once)
        masks = jnp.pad(mask, (0, count * at_once - size)).reshape(rows.shape)

        def compute(index: jax.Array, keep: jax.Array) -> ClippedSum:
            some, some_carried = jax.tree.map(lambda x: x[index], (batch, carried))
            return one_microbatch(some, keys[index], keep, some_carried)

        like = jax.eval_shape(compute, rows[0], masks[0])
        zeros = zeros_like(like)
        nothing = zeros._replace(finite=~zeros.finite)

        def add(totals: PyTree, inputs: tuple[jax.Array, jax.Array]) -> tuple[PyTree, PyTree]:
            # Poisson batches are padded far above their mean, with the padding last: skip microbatches of padding only.
            part = jax.lax.cond(jnp.any(inputs[1]), compute, lambda *_: nothing, *inputs)
            sums, errors = totals
            return compensated(sums, errors, _sums(part)), part._replace(**dict.fromkeys(SUMMED))

        (sums, errors), stacked = jax.lax.scan(add, (_sums(zeros), _sums(zeros)), (rows, masks))
        clipped_sum, outer_sum = jax.tree.map(jnp.add, sums, errors)
        each = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:]))[:size], stacked)
        return each._replace(
            clipped_sum=clipped_sum,
            outer_sum=outer_sum,
            sensitivity=sensitivity_of(l2_norm_clip),
            outer_l2_norm_clip=None if outer_l2_norm_clip is None else as_number(outer_l2_norm_clip),
        )

    made = clipped if mesh is None else over_devices(clipped, mesh)

    def marked(
        params: PyTree,
        batch: PyTree,
        keys: jax.Array,
        mask: jax.Array | None = None,
        carried: PyTree | None = None,
    ) -> ClippedSum:
        return made(params, batch, keys, mask, carried)._replace(masked=None if mask is None else ())

    return marked


def _sums(total: ClippedSum) -> tuple[PyTree, PyTree]:
    return total.clipped_sum, total.outer_sum


def _equal_parts(size: int) -> int:
    """The size of equal microbatches of a batch: as few as possible, so that few rows are padding."""
    largest = 64 if jax.default_backend() == "cpu" else 1024
    return -(-size // max(1, -(-size // largest)))


def vmap_gradients(loss: Callable[..., tuple[jax.Array, PyTree]]) -> Callable[..., PerExample]:
    """``f(params, batch, keys) -> PerExample``, which forms the gradient of every example."""
    value_and_grad = jax.vmap(jax.value_and_grad(loss, has_aux=True), in_axes=(None, 0, 0))

    def per_example(params: PyTree, batch: PyTree, keys: jax.Array) -> PerExample:
        (losses, aux), grads = value_and_grad(params, batch, keys)
        grads = round_once(grads)

        def sum_with(weights: PyTree, keep: jax.Array) -> PyTree:
            return jax.tree.map(lambda w, g: masked_sum(w, keep, g), weights, grads)

        return PerExample(losses, aux, jax.tree.map(squared_norm, grads), sum_with)

    return per_example


def _best_gradients(loss: Callable[..., tuple[jax.Array, PyTree]]) -> Callable[..., PerExample]:
    ghost, by_vmap = ghost_gradients(loss), vmap_gradients(loss)

    def per_example(params: PyTree, batch: PyTree, keys: jax.Array) -> PerExample:
        try:
            return ghost(params, batch, keys)
        except (ExampleIndependentLossError, HiddenFlowError):
            return by_vmap(params, batch, keys)

    return per_example


_METHODS = {"auto": _best_gradients, "ghost": ghost_gradients, "vmap": vmap_gradients}
