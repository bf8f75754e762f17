"""The optax transform: per-example clipping, error feedback and Gaussian noise.

It must be the first in a chain, like ``optax.contrib.differentially_private_aggregate``::

    tx = optax.chain(error_feedback_aggregate(1.0, 1.1, fresh_key(), expected_batch_size=256), optax.adam(1e-3))
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from efsgd_jax.privacy import feedback_options as options
from efsgd_jax.privacy import noise
from efsgd_jax.privacy.clipped_sum import ClipNorm, ClippedSum, clip_and_sum, clip_by_norm, sensitivity_of
from efsgd_jax.privacy.keys import (
    UsedOnce,
    as_typed_key,
    key_of_init,
    member_key,
    release_keys,
    warn_of_debugging_key,
)
from efsgd_jax.privacy.residuals import decayed, init_units, unit_lengths, units_of, update_units
from efsgd_jax.privacy.rounding import margin

PyTree = Any


class ErrorFeedbackState(NamedTuple):
    """State of the transform. All of it is private: never release it.

    Attributes:
      rng_key: the key from which the noise of later updates is derived.
      residual: the residual of error feedback. ``()`` in mode ``none``; ``e``, a pytree like the parameters, in
        ``hidden`` and ``private``; in ``local`` one number (a norm) for each unit, float32 ``[num_units]``, or one
        vector for each unit, a pytree like the parameters with a leading axis of length ``num_units``.
      like: pytree like the parameters, of arrays ``[0, ...]`` without elements, which record the shapes that
        per-example gradients must have; ``()`` if they are not known.
    """

    rng_key: jax.Array
    residual: PyTree
    like: PyTree = ()


def add_noise(tree: PyTree, std: Any, sensitivity: Any, key: jax.Array) -> PyTree:
    """Independent noise of at least ``std`` on every coordinate, on a public lattice (``noise``).

    Args:
      tree: pytree of float arrays, which one example changes by at most ``sensitivity`` in l2 norm.
      std: standard deviation of the noise, before it is increased for what rounding to the lattice adds to the
        sensitivity.
      sensitivity: a scalar.
      key: typed PRNG key, secret and used once.
    """
    return noise.add_noise(key, tree, noise.lattice_unit(std, sum(x.size for x in jax.tree.leaves(tree)), sensitivity))


def error_feedback_aggregate(
    l2_norm_clip: ClipNorm,
    noise_multiplier: jax.typing.ArrayLike,
    key: jax.Array,
    *,
    expected_batch_size: jax.typing.ArrayLike,
    feedback: options.FeedbackMode = "none",
    feedback_l2_norm_clip: jax.typing.ArrayLike | None = None,
    feedback_decay: jax.typing.ArrayLike | None = None,
    feedback_share: float | None = None,
    num_units: int | None = None,
    unit_residual: options.UnitResidual = "scalar",
    sampling: options.Sampling = "poisson",
) -> optax.GradientTransformationExtraArgs:
    r"""Clips per-example gradients, feeds back what clipping removed, and adds Gaussian noise.

    With S = C = ``l2_norm_clip`` (or ``S = sqrt(sum_m C_m^2)``), D = ``feedback_l2_norm_clip``, a =
    ``feedback_decay``, rho = ``feedback_share``, sigma = ``noise_multiplier``, B = ``expected_batch_size``, and z, z'
    independent standard normal::

        none:     u = sum_i clip(g_i, C)                                   update = (u + sigma S z) / B
        hidden:   v = u + clip(e, D);  e <- e + sum_i g_i - v              update = (v + sigma S z) / B
        local:    c_i = clip(g_i + r_i, C);  r_i <- a clip(g_i + r_i - c_i, D)
                                                                           update = (sum_i c_i + sigma S z) / B
        private:  u~ = u + sigma S / sqrt(1 - rho) z
                  r~ = sum_i (clip(g_i, D) - clip(g_i, C)) + sigma (D - S) / sqrt(rho) z'
                  e <- a e + (1 - a) r~                                    update = (u~ + e) / B, with the new e

    Args:
      l2_norm_clip: clip norm of one example's gradient over the whole pytree, or one per top-level group.
        May be infinite only if ``noise_multiplier`` is 0.
      noise_multiplier: sigma, std of the noise on the *sum* in units of the sensitivity S (of both channels
        together in mode ``private``).
      key: typed or legacy PRNG key; secret, from ``fresh_key()``. Under ``vmap`` each member of an ensemble
        gets its own noise, also if the transform was built outside of it. ``init`` copies it, so the state may be
        donated.
      expected_batch_size: the public B = q * N that the noisy sum is divided by. Never the realised or the
        padded size: those depend on the data.
      feedback: ``none`` (DP-SGD), ``hidden`` (DiceSGD, EFSGD: one residual of unclipped gradients, never released),
        ``local`` (one residual for each example or unit) or ``private`` (what clipping removes is released through a
        second noised sum, the residual channel).
      feedback_l2_norm_clip: D. ``hidden``: clip norm of the residual, on the scale of the sum. ``local``: bound of one
        unit's residual. ``private``: the larger clip norm, > S; groups have the same multiple of their C_m.
      feedback_decay: a in [0, 1), by default 0.5 for ``local`` and 0.9 for ``private``; other modes have none.
      feedback_share: rho in (0, 1), for ``private`` only: the share of the budget that the residual channel gets; by
        default 0.1.
      num_units: N, for ``local`` only: the number of units. A unit is an example (or a shard) with a residual of its
        own.
      unit_residual: for ``local``. With "scalar" each unit keeps one number, a norm (N floats). It is added to the norm
        of the unit's next gradient, so that ``g_i + r_i`` above is along g_i. With "vector" each unit keeps a gradient
        (N times the parameters); only per-example gradients are accepted.
      sampling: how batches are sampled: "poisson", "full_batch", "public_order", "shuffle" or "without_replacement".
        ``local`` accepts only the first three, in which units take part independently of each other; the other modes
        accept all five.

    Returns:
      A ``GradientTransformationExtraArgs``. ``update(updates, state, params=None, *, mask=None, indices=None)`` takes
      per-example gradients (each leaf ``[B', ...]``; ``mask`` bool ``[B']`` is False on padded rows; ``indices``
      int ``[B']`` names each row's unit, for ``local``), or a ``ClippedSum`` from ``clipped_grad`` (clipped
      with the same norm, with ``outer_clip(...)`` and ``carried=unit_lengths(state.residual, indices)`` where the mode
      has them). It returns updates of the parameters' shape and of the gradients' dtype.

    Raises:
      TypeError: a key that is a number.
      ValueError: averaged gradients, statistics of a batch among the parameters, a mask of another length or together
        with a ``ClippedSum``, a clip norm that is not positive, infinite clipping with noise, an option of another
        mode, ``local`` with another sampling or without ``indices``; a ``ClippedSum`` that was clipped to another norm
        or all of whose arrays were changed by a transform in between; parameters that ``optax.masked`` or
        ``optax.multi_transform`` hides; a
        state that was used before. If a clip norm is known only when the program runs, and that of the ``ClippedSum``
        is above the transform's, the noise and thus the update are NaN.

    Formal guarantees:
      One update is one Gaussian release with ``noise_multiplier`` on Poisson-sampled examples, for blanking one
      example (replacing it by one that contributes nothing), in the arithmetic of docs/privacy/arithmetic.md: an
      example changes the sum, rounding included, by at most S (except in ``hidden``), and the noise is discrete on a
      public lattice (``rounding``, ``noise``). The events of T updates, with
      proofs in docs/privacy/feedback.md, are ``dp_sgd_events.dp_sgd_event`` for ``none``, for ``private``, and for
      ``local`` if no batch overflows (``DpSgdMechanism`` charges the overflow to delta), and
      ``dp_sgd_events.hidden_feedback_event`` for ``hidden``, whose residual carries each example into every later step
      without amplification. No gradient needs to be bounded. The bounds for ``hidden`` in the literature assume
      bounded gradients, which no code enforces.
      All of this holds for Poisson sampling only, if the state stays secret, and if nothing else reads the examples.

    Examples:
      >>> params, batch = jnp.zeros(3), jnp.ones((32, 3))
      >>> from efsgd_jax.privacy import fresh_key
      >>> tx = error_feedback_aggregate(1.0, 1.1, fresh_key(), expected_batch_size=32)
      >>> per_example = jax.vmap(jax.grad(lambda p, x: jnp.sum((p - x) ** 2)), (None, 0))(params, batch)
      >>> updates, state = tx.update(per_example, tx.init(params), params)
      >>> updates.shape
      (3,)

    References:
      Abadi et al., 2016, Deep Learning with Differential Privacy, https://arxiv.org/abs/1607.00133;
      Zhang et al., 2024, DiceSGD, https://arxiv.org/abs/2311.14632; Ma & Zhang, 2026,
      https://arxiv.org/abs/2601.15061.

    Warnings:
      Must be first in the chain, and not inside ``optax.MultiSteps``: gradients must not be averaged before clipping.
    """
    options.check(
        l2_norm_clip, noise_multiplier, expected_batch_size, feedback, feedback_l2_norm_clip, feedback_decay,
        feedback_share, num_units, unit_residual, sampling,
    )  # fmt: skip
    key = as_typed_key(key)
    debugging = not options.is_zero(noise_multiplier) and warn_of_debugging_key(key, "error_feedback_aggregate")
    used = UsedOnce()
    decay = options.decay_of(feedback, feedback_decay)
    share = options.share_of(feedback_share)
    outer = options.outer_clip(feedback, feedback_l2_norm_clip)
    bound: Any = feedback_l2_norm_clip

    def init_fn(params: PyTree) -> ErrorFeedbackState:
        options.check_params(params)
        params = jax.tree.map(jnp.asarray, params)
        options.warn_of_constant_key(key, params)
        residual: PyTree = ()
        if feedback in ("hidden", "private"):
            residual = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), params)
        elif feedback == "local":
            assert num_units is not None
            residual = init_units(params, num_units, unit_residual, l2_norm_clip)
        like = jax.tree.map(lambda p: jnp.zeros((0, *p.shape), p.dtype), params)
        return ErrorFeedbackState(member_key(key_of_init(key), params), residual, like)

    def clip(grads: PyTree, residual: PyTree, mask: Any, indices: Any) -> tuple[PyTree, ClippedSum]:
        if feedback != "local":
            return None, clip_and_sum(grads, l2_norm_clip, mask=mask, outer_l2_norm_clip=outer)
        if unit_residual == "scalar":
            return None, clip_and_sum(grads, l2_norm_clip, mask=mask, carried=unit_lengths(residual, indices))
        grads = optax.tree.add(grads, units_of(residual, indices))
        nothing = init_units(grads, len(indices), "scalar", l2_norm_clip)
        return grads, clip_and_sum(grads, l2_norm_clip, mask=mask, carried=nothing)

    def update_fn(
        updates: PyTree,
        state: ErrorFeedbackState,
        params: PyTree | None = None,
        *,
        mask: jax.Array | None = None,
        indices: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, ErrorFeedbackState]:
        del extra_args
        options.check_whole(updates)
        if feedback == "local" and indices is None:
            raise ValueError("feedback='local' needs indices=: int [B], the unit that each row belongs to.")
        stretched, total = None, updates
        if isinstance(updates, ClippedSum):
            options.check_clipped(total, l2_norm_clip, outer, feedback, unit_residual, mask)
            options.check_like(total.clipped_sum, params, state.like)
        else:
            updates = jax.tree.map(jnp.asarray, updates)
            options.check_per_example(updates, params, state.like)
            stretched, total = clip(updates, state.residual, mask, indices)
        dtypes = jax.tree.map(lambda g: g.dtype, total.clipped_sum if updates is total else updates)
        noiseless = options.is_zero(noise_multiplier)
        if not noiseless and not debugging:
            used.check(state.rng_key)

        value, residual = total.clipped_sum, state.residual
        sensitivity = sensitivity_of(l2_norm_clip)
        numbers = (noise_multiplier, expected_batch_size, sensitivity, bound, decay)
        witness = (updates, params, mask, indices, [jnp.asarray(x) for x in numbers if x is not None])
        rng_key, release_key = jax.random.split(member_key(state.rng_key, witness))
        value_key, channel_key = release_keys(release_key, value, 2)
        std = noise_multiplier * options.unless_longer(sensitivity, total, sensitivity, outer)
        lattice_sensitivity = sensitivity
        if feedback == "hidden":
            value = optax.tree.add(value, clip_by_norm(residual, bound))
            residual = optax.tree.sub(optax.tree.add(residual, total.outer_sum), value)
            # The lattice must be fine in comparison with both sensitivities: S of the fresh sum and 2D of the residual.
            lattice_sensitivity = jnp.minimum(sensitivity, 2 * bound)
            # More noise, for what rounding the sum of the two adds to its sensitivity.
            std = std * (1 + 2.0**-20 * bound / sensitivity)
        elif feedback == "local":
            assert indices is not None  # checked above
            kept = total.l2_norms > 0 if mask is None else (total.l2_norms > 0) & mask
            residual = update_units(
                residual, indices, kept, stretched, total.clipping_excess, l2_norm_clip, bound, decay
            )
        elif feedback == "private":
            clipping_excess = optax.tree.sub(total.outer_sum, value)
            if not noiseless:
                # Each of the two sums has a rounding margin for its own clip norm. For the rounding of their difference
                # those margins are not enough: the last term is added to the sensitivity D - S.
                excess = bound - sensitivity + 2 * margin(value, 2 * len(total.l2_norms)) * sensitivity
                channel = std / sensitivity * excess / share**0.5
                clipping_excess = add_noise(clipping_excess, channel, excess, channel_key)
            residual = decayed(residual, clipping_excess, decay)
            std = std / (1 - share) ** 0.5
        if not noiseless:
            value = add_noise(value, std, lattice_sensitivity, value_key)
        if feedback == "private":
            value = optax.tree.add(value, residual)
        mean = jax.tree.map(lambda v, d: (v / expected_batch_size).astype(d), value, dtypes)
        return mean, ErrorFeedbackState(rng_key, residual, state.like)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
