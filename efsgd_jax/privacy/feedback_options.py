"""The options of ``error_feedback_aggregate``: defaults, and checks of options, parameters and gradients."""

import math
import warnings
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.privacy.checks import check_gradients, check_leaves, close, known
from efsgd_jax.privacy.clipped_sum import ClippedSum, sensitivity_of
from efsgd_jax.privacy.keys import is_debugging_key

PyTree = Any
FeedbackMode = Literal["none", "hidden", "local", "private"]
UnitResidual = Literal["scalar", "vector"]
# With full_batch and public_order it is public which examples take part in which step.
Sampling = Literal["poisson", "full_batch", "public_order", "shuffle", "without_replacement"]

# Defaults of the decay a and of the share rho; neither changes epsilon.
DEFAULT_DECAY = {"local": 0.5, "private": 0.9}
DEFAULT_SHARE = 0.1


def decay_of(feedback: FeedbackMode, decay: Any) -> Any:
    """The decay a, or the default of the mode if it is None."""
    return DEFAULT_DECAY.get(feedback, 0.0) if decay is None else decay


def share_of(share: float | None) -> float:
    """The share rho of the residual channel, or its default if it is None."""
    return DEFAULT_SHARE if share is None else share


def outer_clip(feedback: FeedbackMode, feedback_l2_norm_clip: Any) -> Any:
    """The ``outer_l2_norm_clip`` of ``clipped_grad`` for the mode ``feedback``.

    It is ``inf`` for ``hidden``, ``feedback_l2_norm_clip`` for ``private``, and None for the other modes.
    """
    return {"hidden": math.inf, "private": feedback_l2_norm_clip}.get(feedback)


def is_zero(x: Any) -> bool:
    """Whether ``x`` is known to be 0 while the program is traced; False for a traced value, such as a schedule's."""
    return not isinstance(x, jax.core.Tracer) and bool(np.all(np.asarray(x) == 0))


def check(
    clip: Any,
    noise: Any,
    batch: Any,
    feedback: str,
    feedback_clip: Any,
    decay: Any = None,
    share: Any = None,
    num_units: int | None = None,
    unit_residual: str = "scalar",
    sampling: str = "poisson",
) -> None:
    """Raises ``ValueError`` for options that are out of range or that do not belong to the mode.

    Args:
      clip: ``l2_norm_clip``.
      noise: ``noise_multiplier``.
      batch: ``expected_batch_size``.
      feedback: ``feedback``.
      feedback_clip: ``feedback_l2_norm_clip``.
      decay: ``feedback_decay``.
      share: ``feedback_share``.
      num_units: ``num_units``.
      unit_residual: ``unit_residual``.
      sampling: ``sampling``.
    """
    for name, value, choices in (
        ("feedback", feedback, get_args(FeedbackMode)),
        ("unit_residual", unit_residual, get_args(UnitResidual)),
        ("sampling", sampling, get_args(Sampling)),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {value!r}.")
    _check_mode(feedback, feedback_clip, decay, share, num_units, sampling)
    clips = list(clip.values()) if hasattr(clip, "values") else [clip]
    values = [("noise_multiplier", noise, True), ("expected_batch_size", batch, False)]
    values += [("l2_norm_clip", c, False) for c in clips]
    values += [("feedback_l2_norm_clip", feedback_clip, False)] if feedback_clip is not None else []
    for name, value, zero_allowed in values:
        if isinstance(value, jax.core.Tracer):
            continue
        if not (value > 0 or (zero_allowed and value == 0)):
            raise ValueError(f"{name} must be {'at least' if zero_allowed else 'above'} 0, got {value}.")
        bounded = feedback == "private" or (name == "l2_norm_clip" and feedback == "local") or not is_zero(noise)
        # D may be infinite in mode local: it bounds a residual, and the sum of gradient and residual is clipped to C.
        per_unit = name == "feedback_l2_norm_clip" and feedback == "local"
        if "clip" in name and np.isinf(value) and bounded and not per_unit:
            raise ValueError(
                f"{name} is infinite with noise_multiplier={noise}, feedback={feedback!r}: noise does not protect "
                "unbounded sums, and without clipping there is nothing to feed back."
            )
    norm = 0.0 if any(isinstance(c, jax.core.Tracer) for c in clips) else math.hypot(*clips)
    if feedback == "private" and not isinstance(feedback_clip, jax.core.Tracer) and feedback_clip <= norm:
        raise ValueError(f"feedback_l2_norm_clip must be above l2_norm_clip ({norm:g}), got {feedback_clip}.")


def _check_mode(feedback: str, clip: Any, decay: Any, share: Any, num_units: int | None, sampling: str) -> None:
    if (feedback == "none") != (clip is None):
        raise ValueError(
            f"feedback={feedback!r} with feedback_l2_norm_clip={clip}: every mode but 'none' needs a norm for what it "
            "feeds back, 'none' takes none."
        )
    for name, value, modes in (
        ("feedback_decay", decay, ("local", "private")),
        ("feedback_share", share, ("private",)),
        ("num_units", num_units, ("local",)),
    ):
        if value is not None and feedback not in modes:
            raise ValueError(f"{name}={value} with feedback={feedback!r}: only {' and '.join(modes)} take it.")
    if decay is not None and not isinstance(decay, jax.core.Tracer) and not 0 <= decay < 1:
        raise ValueError(f"feedback_decay must be in [0, 1), got {decay}.")
    if share is not None and not 0 < share < 1:
        raise ValueError(f"feedback_share must be in (0, 1), got {share}.")
    if feedback == "local":
        if num_units is None or num_units < 1:
            raise ValueError(f"feedback='local' needs num_units, how many residuals to keep; got {num_units}.")
        if sampling not in ("poisson", "full_batch", "public_order"):
            raise ValueError(
                f"feedback='local' with sampling={sampling!r}: its proof needs draws that are independent across "
                "units; use efsgd_jax.privacy.poisson_batch, or another mode."
            )


def check_params(params: PyTree) -> None:
    """Raises ``ValueError`` for leaves that are not floating-point, or that are statistics of a batch (BatchNorm)."""
    check_leaves(params, "the parameters")
    statistics = ("batch_stats", "BatchStat")  # Linen's collection, and NNX's variable

    def is_statistic(x: Any) -> bool:
        return type(x).__name__ in statistics or (hasattr(x, "keys") and any(k in statistics for k in x))

    for leaf in jax.tree.leaves(params, is_leaf=is_statistic):
        if is_statistic(leaf):
            raise ValueError(
                f"the parameters hold {'/'.join(statistics)}: means over a batch, in which examples see each other, so "
                "that no clipping bounds what one of them changes. Use GroupNorm or LayerNorm, and pass the trainable "
                "parameters alone (variables['params'], nnx.state(model, nnx.Param))."
            )


def warn_of_constant_key(key: jax.Array, params: PyTree) -> None:
    """Warns if ``init`` is compiled with the key as a constant, so that every call starts with the same noise key."""
    if any(isinstance(p, jax.core.Tracer) for p in jax.tree.leaves(params)) and not isinstance(key, jax.core.Tracer):
        traced_by_jit = isinstance(jnp.zeros(()) + 0, jax.core.Tracer)
        if traced_by_jit and not is_debugging_key(key):
            warnings.warn(
                "init is compiled with its key as a constant: every call gives a state with the same noise. Call init "
                "without jit, or pass the key as an argument of the compiled function.",
                stacklevel=3,
            )


def check_whole(updates: PyTree) -> None:
    """Raises ``ValueError`` if ``optax.masked``, ``partition`` or ``multi_transform`` hides leaves."""
    leaves = jax.tree.leaves(updates, is_leaf=lambda x: isinstance(x, optax.MaskedNode))
    if any(isinstance(x, optax.MaskedNode) for x in leaves):
        raise ValueError(
            "optax.masked, partition or multi_transform hides leaves from the private transform: their per-example "
            "gradients would pass it neither clipped nor noised, and the norm would be of a part. Put the private "
            "transform first, over all leaves, and masks after it: "
            "optax.chain(error_feedback_aggregate(...), optax.masked(...))."
        )


def check_per_example(updates: PyTree, params: PyTree | None, like: PyTree) -> None:
    """Raises ``ValueError`` for gradients without an example axis, such as averaged ones.

    Args:
      updates: the gradients.
      params: the parameters, whose shapes the gradients must have after the example axis; None if not given.
      like: ``ErrorFeedbackState.like``, the shapes that ``init`` recorded; it is used if ``params`` is None.
    """
    shapes = _shapes(params, like)
    if shapes is not None and len(shapes) != len(jax.tree.leaves(updates)):
        raise ValueError(
            f"there are gradients of {len(jax.tree.leaves(updates))} leaves and {len(shapes)} parameters: the "
            "transform is for all parameters it was initialised with. To train some of them, initialise it with these."
        )
    for (path, g), shape in zip(_with_paths(updates), shapes or [], strict=shapes is not None):
        if jnp.shape(g)[1:] == shape and jnp.ndim(g) == len(shape) + 1:
            continue
        if path.startswith("['clipped_sum']"):
            raise ValueError(
                "a ClippedSum was taken apart into its arrays, as nnx.Optimizer.update does. Split the model instead: "
                "graph, params = nnx.split(model, nnx.Param), then updates, state = tx.update(total, state, params) "
                "and params = optax.apply_updates(params, updates)."
            )
        raise ValueError(
            f"expected per-example gradients of shape (B, *{shape}) at {path}, got {jnp.shape(g)}: the transform must "
            "be first in the chain and see jax.vmap(jax.grad(loss), in_axes=(None, 0)), not an average."
        )
    check_gradients(updates)


def check_like(sums: PyTree, params: PyTree | None, like: PyTree) -> None:
    """Raises ``ValueError`` for a clipped sum whose shapes are not those of the parameters.

    Args:
      sums: the clipped sum.
      params: the parameters; None if not given.
      like: ``ErrorFeedbackState.like``, the shapes that ``init`` recorded; it is used if ``params`` is None.
    """
    shapes = _shapes(params, like)
    if shapes is not None and shapes != [jnp.shape(x) for x in jax.tree.leaves(sums)]:
        raise ValueError(
            f"the ClippedSum has leaves of shapes {[jnp.shape(x) for x in jax.tree.leaves(sums)]}, the parameters "
            f"{shapes}; it is of other parameters."
        )


def _with_paths(tree: PyTree) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(p) or "the only leaf", x) for p, x in jax.tree_util.tree_leaves_with_path(tree)]


def _shapes(params: PyTree | None, like: PyTree) -> list[tuple[int, ...]] | None:
    if params is not None:
        return [jnp.shape(p) for p in jax.tree.leaves(params)]
    return None if isinstance(like, tuple) and not like else [jnp.shape(p)[1:] for p in jax.tree.leaves(like)]


def check_clipped(
    total: ClippedSum, l2_norm_clip: Any, outer: Any, feedback: str, unit_residual: str, mask: Any
) -> None:
    """Raises ``ValueError`` for a ``ClippedSum`` that was not made for the transform with these options.

    ``outer`` is the result of ``outer_clip`` for the mode; the other arguments are those of the transform.
    """
    if jnp.result_type(total.finite) != jnp.bool_ or any(
        jnp.result_type(x) != jnp.bool_ for x in jax.tree.leaves(total.clipped)
    ):
        raise ValueError(
            "a transform before this one has changed the ClippedSum, whose bound is then not known any more: the "
            "private transform must be the first in the chain."
        )
    if mask is not None:
        raise ValueError("mask= has no effect on a ClippedSum; give it to the function that clipped_grad returns.")
    given, own = known(total.sensitivity), known(sensitivity_of(l2_norm_clip))
    if given is not None and own is not None and not close(given, own):
        raise ValueError(f"the ClippedSum was clipped to {given:g}, and this transform noises sums clipped to {own:g}.")
    if (total.outer_sum is None) != (outer is None):
        wanted = {"hidden": "inf", "private": "feedback_l2_norm_clip"}.get(feedback, "None")
        raise ValueError(f"feedback={feedback!r} needs clipped_grad(..., outer_l2_norm_clip={wanted}).")
    if outer is not None:
        given, own = known(total.outer_l2_norm_clip), known(outer)
        if given is not None and own is not None and not close(given, own):
            raise ValueError(
                f"the ClippedSum's outer_l2_norm_clip is {given:g}, and feedback={feedback!r} needs {own:g}: use "
                "efsgd_jax.privacy.outer_clip(feedback, feedback_l2_norm_clip)."
            )
    if feedback == "local" and (total.clipping_excess is None or unit_residual == "vector"):
        raise ValueError(
            "feedback='local' needs clipped_grad(...)(..., carried=unit_lengths(state.residual, indices)) with "
            "unit_residual='scalar', or per-example gradients. In a chain the transform's state is state[0]; "
            "unit_lengths is in efsgd_jax.privacy."
        )
    if feedback != "local" and total.clipping_excess is not None:
        raise ValueError(f"the ClippedSum was made with carried=, which feedback={feedback!r} does not have.")


def unless_longer(x: Any, total: ClippedSum, sensitivity: Any, outer: Any) -> Any:
    """``x``, or NaN if a clip norm of ``total`` turns out to be above the transform's own when the program runs.

    If all clip norms are known while the program is traced, ``check_clipped`` has compared them, and ``x`` is returned.
    ``sensitivity`` is that of the transform, and ``outer`` the result of ``outer_clip`` for its mode.
    """
    pairs = [(total.sensitivity, sensitivity)]
    pairs += [] if outer is None or total.outer_l2_norm_clip is None else [(total.outer_l2_norm_clip, outer)]
    if all(known(a) is not None and known(b) is not None for a, b in pairs):
        return x  # compared by check_clipped
    longer = jnp.any(jnp.stack([jnp.asarray(a) > 1.00001 * jnp.asarray(b) for a, b in pairs]))
    return jnp.where(longer, jnp.nan, x)
