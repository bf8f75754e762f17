"""`efsgd_gan`'s training step, private and plain, for the benchmarks of the whole step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import ClippedSum, DpSgdMechanism, clipped_grad, sensitivity_of
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.base import Synthesizer
from efsgd_jax.synthesizers.efsgd_gan import method as gan

EXAMPLES = 60_000
SPEC = ImageSpec(28, 1, 10)
PyTree = Any


def plain_grad(loss: Callable[..., Any], l2_norm_clip: Any, *, microbatch_size: int | None = None, **_: Any) -> Any:
    """In the place of ``clipped_grad``: the sum of the batch's gradients, of no example in particular."""

    def of_batch(params: PyTree, batch: PyTree, keys: jax.Array, mask: jax.Array) -> tuple[PyTree, Any]:
        def total(params: PyTree) -> tuple[jax.Array, Any]:
            losses, aux = jax.vmap(loss, (None, 0, 0))(params, batch, keys)
            return jnp.sum(jnp.where(mask, losses, 0.0)), (losses, aux)

        return jax.grad(total, has_aux=True)(params)

    def summed(params: PyTree, batch: PyTree, keys: jax.Array, mask: Any = None, carried: Any = None) -> ClippedSum:
        size = keys.shape[0]
        mask = jnp.ones(size, bool) if mask is None else mask
        if microbatch_size is None or size <= microbatch_size:
            total, (losses, aux) = of_batch(params, batch, keys, mask)
        else:
            count = -(-size // microbatch_size)
            rows = jnp.arange(count * microbatch_size)
            rows = jnp.where(rows < size, rows, 0).reshape(count, -1)
            masks = jnp.pad(mask, (0, rows.size - size)).reshape(count, -1)

            def add(total: PyTree, part: Any) -> tuple[PyTree, Any]:
                index, keep = part

                def compute() -> tuple[PyTree, Any]:
                    return of_batch(params, jax.tree.map(lambda x: x[index], batch), keys[index], keep)

                nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute))
                gradient, values = jax.lax.cond(jnp.any(keep), compute, lambda: nothing)
                return jax.tree.map(jnp.add, total, gradient), values

            total, values = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), (rows, masks))
            losses, aux = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], values)
        none = jnp.zeros(size, bool)
        clipped = dict.fromkeys(l2_norm_clip, none) if isinstance(l2_norm_clip, dict) else none
        zeros = jnp.zeros(size)
        return ClippedSum(total, None, None, zeros, clipped, losses, aux, ~none, sensitivity_of(l2_norm_clip), None)

    return summed


def synthesizer(config: ConfigDict, kind: str, microbatch_size: int | None) -> Synthesizer:
    """`efsgd_gan` as ``config`` has it, its gradients by ``kind``: ghost, vmap, or plain (and then without noise)."""
    method = method_named(config.method.name)
    hp = dataclasses.replace(method.read(config.method.to_dict()), microbatch_size=microbatch_size)
    mechanism: DpSgdMechanism = method.mechanism(config, EXAMPLES)
    if kind == "plain":
        mechanism = mechanism._replace(noise_multiplier=0.0)
    original = gan.clipped_grad
    try:
        gan.clipped_grad = plain_grad if kind == "plain" else _by(kind)
        return gan.efsgd_gan(SPEC, hp, mechanism)
    finally:
        gan.clipped_grad = original


def _by(method: str) -> Any:
    return lambda loss, clip, **options: clipped_grad(loss, clip, **{**options, "method": method})


def random_data() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, *SPEC.shape), np.uint8)
    return jnp.asarray(images), jnp.asarray(rng.integers(0, SPEC.num_classes, EXAMPLES), jnp.int32)
