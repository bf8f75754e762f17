"""A method's training step with other gradients than its own, for the benchmarks of the whole step."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import ClippedSum, PlannedPhase, clipped_grad, gradient_access, sensitivity_of
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.base import Phase, Record
from efsgd_jax.synthesizers.efsgd_gan import method as efsgd_gan

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


@contextlib.contextmanager
def gradients_by(kind: str) -> Iterator[None]:
    """``clipped_grad`` of real and of generated images is ghost, vmap or plain; for a step that is traced in here."""
    other = plain_grad if kind == "plain" else functools.partial(clipped_grad, method=kind)
    with mock.patch.object(gradient_access, "clipped_grad", other), mock.patch.object(efsgd_gan, "clipped_grad", other):
        yield


def phase_by(
    kind: str, microbatch_size: int | None, config: ConfigDict, plan: Sequence[PlannedPhase]
) -> tuple[Phase, dict[str, PyTree]]:
    """The last phase of the config's method, to be bound and traced within ``gradients_by(kind)``, and the release of
    those before it: arrays of these shapes with random values. A plain phase is without noise or feedback."""
    method = method_named(config.method.name)
    hp = method.read(config.method.to_dict())
    if hasattr(hp, "microbatch_size"):
        hp = dataclasses.replace(hp, microbatch_size=microbatch_size)
    *before, last = plan
    assert last.mechanism is not None
    if kind == "plain":
        plain = last.mechanism.with_noise(0.0)._replace(feedback="none", feedback_l2_norm_clip=None)
        last = last._replace(mechanism=plain)
    *earlier, phase = method.phases(SPEC, hp, [*before, last], None)
    rng, released = np.random.default_rng(0), {}

    def random(like: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(rng.uniform(0.1, 1.0, like.shape) * jnp.issubdtype(like.dtype, jnp.inexact), like.dtype)

    for one in earlier:
        like = jax.eval_shape(lambda key, one=one: one.release(one.init(key, released)), jax.random.key(0))
        released[one.name] = jax.tree.map(random, like)
    return phase, released


def random_records() -> Record:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, *SPEC.shape), np.uint8)
    return Record(jnp.asarray(images), jnp.asarray(rng.integers(0, SPEC.num_classes, EXAMPLES), jnp.int32))
