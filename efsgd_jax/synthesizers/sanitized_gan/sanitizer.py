"""The sanitiser: the identity in the forward pass; in the backward pass it clips the gradient and adds noise."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efsgd_jax.privacy.feedback import ErrorFeedbackState

PyTree = Any


def make_sanitizer(
    transform: optax.GradientTransformationExtraArgs,
) -> Callable[[PyTree, PyTree, jax.Array, jax.Array], PyTree]:
    """Returns ``sanitize(x, residual, key, unit) -> x``, an identity whose gradients are sanitised.

    In ``sanitized_gan``, x is a generated image, and ``unit`` is the index of the shard that scores it.

    Let g be the gradient of the loss with respect to the output, for one pytree ``x``. The gradients with respect to
    the inputs are then::

        x          transform(g): g clipped to C, with noise added and divided by the expected batch size
        residual   the next residual of error feedback (no derivative; this is how the backward pass returns it)

    so that ``jax.grad(loss, argnums=(0, 1))`` returns sanitised gradients and new residuals together. For many
    gradients, each clipped and noised by itself, ``vmap`` it over ``x`` (and ``residual``); the key is split by
    ``keys.member_key``.

    Args:
      transform: ``error_feedback_aggregate(...)`` or ``ShardMechanism.transform``; it gets g with a leading axis of 1,
        as the gradient of a single example.

    Returns:
      ``sanitize``, whose arguments ``x`` and ``residual`` are pytrees. ``key`` is a typed PRNG key, secret and used
      once. ``unit`` is an int scalar, the index of the unit (a shard or an example with a residual of its own)
      whose residual is used in mode ``local``; it has no effect in other modes.

    Formal guarantees:
      The backward pass through whatever computed ``x`` is a function of transform(g) alone. It is post-processing if
      the Jacobian of ``x``, which transform(g) is multiplied by, does not depend on the data. A ``g`` that is not
      finite counts as zero. What is returned for ``residual`` is private.

    Examples:
      >>> from efsgd_jax.privacy import error_feedback_aggregate, fresh_key
      >>> sanitize = make_sanitizer(error_feedback_aggregate(1.0, 2.14, fresh_key(), expected_batch_size=1))
      >>> grads = jax.grad(lambda p: loss(sanitize(generate(p), (), key, unit)))(params)  # doctest: +SKIP
    """

    @jax.custom_vjp
    def sanitize(x: PyTree, residual: PyTree, key: jax.Array, unit: jax.Array) -> PyTree:
        del residual, key, unit
        return x

    def forward(x: PyTree, residual: PyTree, key: jax.Array, unit: jax.Array) -> tuple[PyTree, Any]:
        return x, (residual, key, unit)

    def backward(kept: Any, cotangent: PyTree) -> tuple[PyTree, PyTree, None, None]:
        residual, key, unit = kept
        one = jax.tree.map(lambda g: g[None], cotangent)
        clean, state = transform.update(one, ErrorFeedbackState(key, residual), indices=jnp.reshape(unit, (1,)))
        return clean, state.residual, None, None

    sanitize.defvjp(forward, backward)
    return sanitize
