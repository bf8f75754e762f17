"""Checks of the arguments of clipping while the program is traced: shapes, dtypes, and numbers that are not traced."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.errors import UserError

PyTree = Any


def known(x: Any) -> float | None:
    """The value of a number, or None if it is a traced value."""
    return None if isinstance(x, jax.core.Tracer) else float(np.asarray(x))


def check_delta(delta: float) -> None:
    """Raises ``UserError`` for a delta that is not between 0 and 1."""
    if not 0 < delta < 1:
        raise UserError(f"delta is {delta:g}; it is above 0 and below 1, such as 1e-5 (is it in the place of epsilon?)")


def whole_number(steps: float) -> int:
    """``steps`` as an int; raises ``UserError`` if it is not a whole number of at least 0."""
    if not math.isfinite(steps) or steps != int(steps) or steps < 0:
        raise UserError(f"the number of steps is {steps:g}; it is a whole number, such as round(epochs / q)")
    return int(steps)


def check_probability(q: float) -> None:
    """Raises ``ValueError`` for a sampling probability that is not above 0 and at most 1."""
    if not 0 < q <= 1:
        raise ValueError(
            f"sampling_probability is {q:g}; it is above 0 and at most 1: the expected batch size divided by N."
        )


def check_clip_norm(l2_norm_clip: Any, outer_l2_norm_clip: Any = None) -> None:
    """Raises ``ValueError`` for a clip norm that is not a scalar, or that is known to be negative or NaN.

    It also raises if all of ``l2_norm_clip`` is known to be 0 and there is an outer clip norm (that of the second, less
    clipped sum that error feedback needs), since the outer clip norm is applied as a multiple of ``l2_norm_clip``.
    """
    clips = dict(l2_norm_clip) if isinstance(l2_norm_clip, Mapping) else {"": l2_norm_clip}
    named = [(f"l2_norm_clip{f'[{k!r}]' if k else ''}", c) for k, c in clips.items()]
    named += [] if outer_l2_norm_clip is None else [("outer_l2_norm_clip", outer_l2_norm_clip)]
    for name, clip in named:
        if np.shape(clip):
            raise ValueError(f"{name} has shape {np.shape(clip)}; it is one number, or one for each top-level group.")
        number = known(clip)
        if number is not None and not number >= 0:
            raise ValueError(f"{name} is {number:g}; a clip norm is a number of at least 0, and 0 clips to zero.")
    if outer_l2_norm_clip is not None and all(known(c) == 0 for c in clips.values()):
        raise ValueError(
            "l2_norm_clip is 0, and outer_l2_norm_clip is computed as a multiple of it; use a norm above 0."
        )


def check_leaves(tree: PyTree, what: str) -> None:
    """Raises ``ValueError`` for leaves that are not real floating-point arrays; ``what`` names the tree."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path) or "the only leaf"
            hint = (
                "keep real and imaginary parts as two leaves"
                if jnp.issubdtype(dtype, jnp.complexfloating)
                else "pass the trainable parameters alone, such as eqx.partition(model, eqx.is_inexact_array)[0]"
            )
            raise ValueError(
                f"{what} hold {where} of dtype {dtype}; only real floating-point leaves are clipped: {hint}."
            )


def check_gradients(per_example_grads: PyTree) -> int:
    """Checks per-example gradients and returns their number of rows.

    Raises:
      ValueError: there are no leaves, the leaves do not have the same leading axis, or they are not floating-point.
    """
    leaves = jax.tree.leaves(per_example_grads)
    shapes = [jnp.shape(g) for g in leaves]
    if not leaves or any(len(s) < 1 or s[0] != shapes[0][0] for s in shapes):
        raise ValueError(
            f"per-example gradients must all have the same leading example axis; got shapes {shapes}. Averaged "
            "gradients cannot be clipped per example: use jax.vmap(jax.grad(loss), in_axes=(None, 0))."
        )
    check_leaves(per_example_grads, "the gradients")
    return int(shapes[0][0])


def check_rows(rows: int, mask: Any, carried: PyTree) -> None:
    """Raises ``ValueError`` for a mask or carried norms whose shape is not ``[rows]``, or a mask that is not bool.

    The carried norms are the argument ``carried`` of ``clip_and_sum``.
    """
    if mask is not None:
        if np.shape(mask) != (rows,):
            raise ValueError(
                f"mask has shape {np.shape(mask)}; the batch has {rows} examples, and it is bool [{rows}]."
            )
        if jnp.result_type(mask) != jnp.bool_:
            raise ValueError(f"mask has dtype {jnp.result_type(mask)}; it is bool [{rows}], False on padded rows.")
    for leaf in jax.tree.leaves(carried):
        if np.shape(leaf) != (rows,):
            raise ValueError(f"carried has shape {np.shape(leaf)}; the batch has {rows} examples, and it is [{rows}].")


def check_batch(batch: PyTree, keys: Any, mask: Any, carried: PyTree) -> int:
    """Checks a batch and returns its number of rows.

    Raises:
      ValueError: batch, keys, mask and carried norms have different numbers of rows, or ``keys`` are not PRNG keys.
    """
    legacy = isinstance(keys, jax.Array | np.ndarray) and keys.dtype == np.uint32
    if not legacy and not (isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"keys are {type(keys).__name__}; they are [B] PRNG keys, one for each example.")
    if keys.ndim != (2 if legacy else 1):
        raise ValueError(
            f"keys have shape {keys.shape}; they are [B] PRNG keys, one for each example: jax.random.split(key, B)."
        )
    rows = int(keys.shape[0])
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if not np.shape(leaf) or np.shape(leaf)[0] != rows:
            raise ValueError(
                f"the batch's leaf {jax.tree_util.keystr(path) or 'itself'} has shape {np.shape(leaf)} and there are "
                f"{rows} keys; every leaf has one row for each example, and each example has one key."
            )
    check_rows(rows, mask, carried)
    return rows


def checked_loss(loss: Callable[..., Any]) -> Callable[..., tuple[jax.Array, PyTree]]:
    """Wraps ``loss`` so that it raises ``ValueError`` if it returns anything but a real scalar and an aux.

    Raises:
      ValueError: it cannot be called with parameters, an example and a key.
    """
    try:
        inspect.signature(loss).bind(None, None, None)
    except TypeError as error:
        raise ValueError(
            f"the loss cannot be called as loss(params, example, key): {error}; a loss without randomness takes the "
            "key too, and does not use it."
        ) from None
    except ValueError:  # a callable that does not tell its arguments
        pass

    def contract(params: PyTree, example: PyTree, key: jax.Array) -> tuple[jax.Array, PyTree]:
        result = loss(params, example, key)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(
                f"the loss returned {type(result).__name__}; it is loss(params, example, key) -> (scalar, aux), where "
                "aux may be None."
            )
        value, aux = result
        if np.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise ValueError(
                f"the loss has shape {np.shape(value)} and dtype {jnp.result_type(value)}; it is one real "
                "floating-point number for one example, without a batch axis."
            )
        return value, aux

    return contract


def check_microbatch_size(size: Any) -> None:
    """Raises ``ValueError`` for anything but a positive whole number, ``"auto"`` or None."""
    if size is None or size == "auto":
        return
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(
            f"microbatch_size is {size!r}; it is a whole number of at least 1, 'auto', or None for all at once."
        )


def close(a: float, b: float) -> bool:
    """Whether two numbers are equal up to a relative difference of 1e-5, as after rounding to float32."""
    return a == b or math.isclose(a, b, rel_tol=1e-5)
