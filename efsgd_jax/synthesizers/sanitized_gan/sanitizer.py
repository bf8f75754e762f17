"""The sanitiser: a function that is the identity forwards, and clips and noises whatever gradient comes back."""

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
    """``sanitize(x, residual, key, unit) -> x``, through which the chain rule passes like through any function.

    With g the cotangent of the result, of one tree ``x``::

        d/dx        = transform(g)          clipped to C, noised, divided: the only thing of g that goes on
        d/dresidual = the residual that error feedback keeps next: not a derivative, but the way out for it

    so that ``jax.grad(loss, argnums=(0, 1))`` returns sanitised gradients and new residuals together. ``vmap`` it over
    ``x`` (and ``residual``) for many gradients, each with a clip and a noise of its own; the key is split by
    ``keys.member_key``.

    Args:
      transform: ``error_feedback_aggregate(...)`` or ``ShardMechanism.transform``; sees g as its only example.

    Returns:
      ``sanitize``, with ``x`` and ``residual`` pytrees, ``key`` a typed PRNG key, secret and used once, and ``unit`` an
      int scalar, which unit's residual it is (mode ``local``).

    Formal guarantees:
      Downstream of ``x`` the backward pass is a function of transform(g) alone: post-processing, if what it is
      multiplied with (``x``'s own Jacobian) does not depend on the data. A ``g`` that is not finite counts as zero.
      What is returned for ``residual`` is private.

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
