"""The optax transform: per-example clipping + error feedback + Gaussian noise.

First in a chain, like ``optax.contrib.differentially_private_aggregate``::

    tx = optax.chain(error_feedback_aggregate(1.0, 1.1, fresh_key(), expected_batch_size=256), optax.adam(1e-3))
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.privacy.clipping import ClipNorm, ClippedSum, clip_and_sum, clip_by_norm
from efsgd_jax.privacy.keys import as_typed_key, member_key

PyTree = Any
FeedbackMode = Literal["none", "hidden"]


class ErrorFeedbackState(NamedTuple):
    """State of the transform. All of it is private: never release it.

    Attributes:
      rng_key: the key of the noise still to come.
      residual: ``e`` of mode ``hidden``, a pytree like the parameters; ``()`` in mode ``none``.
    """

    rng_key: jax.Array
    residual: PyTree


def add_noise(tree: PyTree, std: jax.typing.ArrayLike, keys: Sequence[jax.Array]) -> PyTree:
    """Independent ``N(0, std^2)`` on every coordinate; ``keys`` holds one key per leaf."""
    leaves, treedef = jax.tree.flatten(tree)
    noised = [x + std * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(treedef, noised)


def error_feedback_aggregate(
    l2_norm_clip: ClipNorm,
    noise_multiplier: jax.typing.ArrayLike,
    key: jax.Array,
    *,
    expected_batch_size: jax.typing.ArrayLike,
    feedback: FeedbackMode = "none",
    feedback_l2_norm_clip: jax.typing.ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Clips per-example gradients, feeds back what clipping cut off, and adds Gaussian noise.

    With C = ``l2_norm_clip``, C2 = ``feedback_l2_norm_clip``, sigma = ``noise_multiplier`` and
    B = ``expected_batch_size``::

        none:    v = sum_i clip(g_i, C)
        hidden:  v = sum_i clip(g_i, C) + clip(e, C2);   e <- e + sum_i g_i - v
        update = (v + N(0, (sigma * sensitivity)^2 I)) / B

    where sensitivity is C, or ``sqrt(sum_m C_m^2)`` if ``l2_norm_clip`` maps parameter groups to norms.

    Args:
      l2_norm_clip: clip norm of one example's gradient over the whole pytree, or one per top-level group.
        May be infinite only if ``noise_multiplier`` is 0.
      noise_multiplier: std of the noise on the *sum*, in units of the sensitivity.
      key: typed or legacy PRNG key; secret, from ``fresh_key()``. Under ``vmap`` each member of an ensemble
        gets its own noise, also if the transform was built outside. ``init`` copies it, so the state may be
        donated.
      expected_batch_size: the public B = q * N that the noisy sum is divided by. Never the realised or the
        padded size: those depend on the data.
      feedback: ``"none"`` (DP-SGD) or ``"hidden"`` (the residual never leaves the state).
      feedback_l2_norm_clip: C2, on the scale of the *sum*; required by, and only allowed with, ``hidden``.

    Returns:
      A ``GradientTransformationExtraArgs``. ``update(updates, state, params=None, *, mask=None)`` takes
      per-example gradients (each leaf ``[B', ...]``; ``mask`` bool ``[B']`` is False on padded rows), or a
      ``ClippedSum`` from ``clipped_grad`` (clipped with the same norm, ``keep_raw_sum=True`` for ``hidden``).
      It returns updates of the parameters' shape and of the gradients' dtype.

    Raises:
      TypeError: a key that can be guessed.
      ValueError: averaged gradients, a mask of another length, a clip norm that is not positive, infinite
        clipping with noise, a feedback norm without feedback or the reverse.

    Formal guarantees:
      One update is one Gaussian release with ``noise_multiplier`` on Poisson-sampled examples, under
      adding or removing one example. ``none``: T updates are ``accounting.dp_sgd_event``. ``hidden``: the
      residual carries each example into every later step without amplification; T updates are
      ``accounting.hidden_feedback_event``, which makes no assumption on the gradients and is expensive; the
      bound that the literature publishes assumes bounded gradients, which no code enforces.
      Both hold for Poisson sampling only, for a state that stays secret, and if nothing else sees the examples.

    Examples:
      >>> tx = error_feedback_aggregate(1.0, 1.1, fresh_key(), expected_batch_size=32)  # doctest: +SKIP
      >>> per_example = jax.vmap(jax.grad(loss), (None, 0))(params, batch)  # doctest: +SKIP
      >>> updates, state = tx.update(per_example, tx.init(params), params)  # doctest: +SKIP

    References:
      Abadi et al., 2016, Deep Learning with Differential Privacy, https://arxiv.org/abs/1607.00133;
      Zhang et al., 2024, DiceSGD, https://arxiv.org/abs/2311.14632; Ma & Zhang, 2026,
      https://arxiv.org/abs/2601.15061.

    Warnings:
      Must be first in the chain, and not inside ``optax.MultiSteps``: both would average before clipping.
    """
    _check_arguments(l2_norm_clip, noise_multiplier, expected_batch_size, feedback, feedback_l2_norm_clip)
    key = as_typed_key(key)

    def init_fn(params: PyTree) -> ErrorFeedbackState:
        residual: PyTree = ()
        if feedback == "hidden":
            residual = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
        return ErrorFeedbackState(jax.random.clone(member_key(key, params)), residual)

    def update_fn(
        updates: PyTree,
        state: ErrorFeedbackState,
        params: PyTree | None = None,
        *,
        mask: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, ErrorFeedbackState]:
        del extra_args
        total = updates
        if not isinstance(updates, ClippedSum):
            _check_per_example(updates, params)
            total = clip_and_sum(updates, l2_norm_clip, mask=mask, keep_raw_sum=feedback == "hidden")
        dtypes = jax.tree.map(lambda g: g.dtype, total.clipped_sum if updates is total else updates)

        value, residual = total.clipped_sum, state.residual
        if feedback == "hidden":
            assert feedback_l2_norm_clip is not None  # _check_arguments
            if total.raw_sum is None:
                raise ValueError("feedback='hidden' needs the unclipped sum: clipped_grad(..., keep_raw_sum=True).")
            value = optax.tree.add(value, clip_by_norm(residual, feedback_l2_norm_clip))
            residual = optax.tree.sub(optax.tree.add(residual, total.raw_sum), value)

        rng_key = member_key(state.rng_key, updates)
        rng_key, *noise_keys = jax.random.split(rng_key, len(jax.tree.leaves(value)) + 1)
        if not _is_zero(noise_multiplier):
            value = add_noise(value, noise_multiplier * total.sensitivity, noise_keys)
        mean = jax.tree.map(lambda v, d: (v / expected_batch_size).astype(d), value, dtypes)
        return mean, ErrorFeedbackState(rng_key, residual)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _is_zero(x: Any) -> bool:
    """True if ``x`` is known, now, to be 0; a traced value (a schedule) is not."""
    return not isinstance(x, jax.core.Tracer) and bool(np.all(np.asarray(x) == 0))


def _check_arguments(clip: Any, noise: Any, batch: Any, feedback: str, feedback_clip: Any) -> None:
    if feedback not in get_args(FeedbackMode):
        raise ValueError(f"feedback must be one of {get_args(FeedbackMode)}, got {feedback!r}.")
    if (feedback == "hidden") != (feedback_clip is not None):
        raise ValueError(
            f"feedback={feedback!r} with feedback_l2_norm_clip={feedback_clip}: 'hidden' needs a norm for the "
            "residual, the other modes take none."
        )
    values = [("noise_multiplier", noise, True), ("expected_batch_size", batch, False)]
    values += [("l2_norm_clip", c, False) for c in (clip.values() if hasattr(clip, "values") else [clip])]
    values += [("feedback_l2_norm_clip", feedback_clip, False)] if feedback_clip is not None else []
    for name, value, zero_allowed in values:
        if isinstance(value, jax.core.Tracer):
            continue
        if not (value > 0 or (zero_allowed and value == 0)):
            raise ValueError(f"{name} must be {'at least' if zero_allowed else 'above'} 0, got {value}.")
        if "clip" in name and np.isinf(value) and not _is_zero(noise):
            raise ValueError(f"{name} is infinite with noise_multiplier={noise}: unbounded sums cannot be noised.")


def _check_per_example(updates: PyTree, params: PyTree | None) -> None:
    if params is None:
        return
    for g, p in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        if jnp.shape(g)[1:] != jnp.shape(p) or jnp.ndim(g) != jnp.ndim(p) + 1:
            raise ValueError(
                f"expected per-example gradients of shape (B, *{jnp.shape(p)}), got {jnp.shape(g)}: the transform "
                "must be first in the chain and see jax.vmap(jax.grad(loss), in_axes=(None, 0)), not an average."
            )
