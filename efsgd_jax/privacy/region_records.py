"""Records of which only a region is private: each is held whole and with its region blanked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any
# loss(params, example, key) -> (value, aux)
Loss = Callable[[PyTree, Any, jax.Array], tuple[jax.Array, Any]]


class Regions(NamedTuple):
    """N records in the place of whole ones: ``GradientAccess`` protects what ``whole`` and ``blanked`` differ in.

    Attributes:
      whole: pytree of the records, each leaf ``[N, ...]``. Private.
      blanked: the same, computed from images whose region is blanked. Public.
      held: bool ``[N]``, whether a region holds anything but blank pixels; a record where it does not contributes
        exactly nothing to the private sum. Private.

    Formal guarantees:
      ``blanked`` is public only if it was computed from the pixels outside of the region alone, record by record.
    """

    whole: PyTree
    blanked: PyTree
    held: jax.Array


def loss_of_region(loss: Loss) -> Loss:
    """The part of a loss that the region makes: ``example`` is a pair of the whole record and the blanked one.

    Its gradient is the difference of the two gradients, with the same key; ``aux`` is of the whole record.

    Examples:
      >>> square = lambda w, x, key: (jnp.square(w - x), None)
      >>> jax.grad(lambda w: loss_of_region(square)(w, (3.0, 1.0), jax.random.key(0))[0])(0.0)
      Array(-4., dtype=float32, weak_type=True)
    """

    def of_region(params: PyTree, example: tuple[Any, Any], key: jax.Array) -> tuple[jax.Array, Any]:
        whole, blanked = example
        value, aux = loss(params, whole, key)
        return value - loss(params, blanked, key)[0], aux

    return of_region


def mean_gradient(
    loss: Loss, params: PyTree, rows: PyTree, keys: jax.Array, mask: jax.Array | None = None
) -> tuple[jax.Array, PyTree]:
    """The mean loss of the rows where ``mask`` is True, and its gradient: neither clipped nor noised.

    Args:
      loss: loss of one record.
      params: pytree of parameters.
      rows: records that are public, such as blanked ones; each leaf ``[B, ...]``.
      keys: typed PRNG keys ``[B]``.
      mask: bool ``[B]``; None for all rows.

    Formal guarantees:
      None: the result is exact. Give it rows that are public and that are chosen independently of what was sampled;
      of sampled rows it shows which ones they are.
    """
    keep = jnp.ones(len(keys), bool) if mask is None else jnp.asarray(mask)

    def mean(params: PyTree) -> jax.Array:
        losses, _ = jax.vmap(loss, in_axes=(None, 0, 0))(params, rows, keys)
        return jnp.sum(jnp.where(keep, losses, 0.0)) / jnp.maximum(jnp.sum(keep), 1)

    return jax.value_and_grad(mean)(params)
