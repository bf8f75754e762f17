"""What a synthesis method is to the training loop: a NamedTuple of pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import dp_accounting
import jax

PyTree = Any


class Batch(NamedTuple):
    """A Poisson batch padded to a fixed shape.

    Attributes:
      images: uint8 ``[B, S, S, C]``.
      labels: int32 ``[B]``.
      mask: bool ``[B]``, False on padding.
      rows: int32 ``[B]``, which training examples these are.
    """

    images: jax.Array
    labels: jax.Array
    mask: jax.Array
    rows: jax.Array


class Synthesizer(NamedTuple):
    """A method, bound to a data set's public shape and to a mechanism.

    Attributes:
      init: ``init(key) -> state``. The state is a pytree, all of it private; ``state.step`` counts steps taken and
        ``state.params`` are the networks that a real example may have moved through the mechanism.
      arrange: ``arrange(key, images, labels) -> data``: the training part (uint8 ``[N, S, S, C]``, int ``[N]``) as
        ``batch`` wants it; once in a run, with the run's secret sampling key.
      batch: ``batch(key, step, data) -> batch``: what step ``step`` reads, by the draws that ``event`` describes; the
        same key for all steps.
      step: ``step(state, batch) -> (state, metrics)``; pure, to be jitted; metrics are scalars, private.
      example_loss: ``example_loss(params, (image, label), key) -> (loss, aux)``: of one real example (uint8
        ``[S, S, C]``, int); ``step`` clips its gradient. None where gradients are not of examples.
      event: ``event(steps) -> DpEvent`` of that many steps.
      released: ``released(state) -> params``: what may be published after the event's epsilon is spent.
      generate: ``generate(params, key, labels) -> images``: float32 ``[n, S, S, C]`` in (-1, 1) for int ``[n]`` labels.
      warm_steps: how often to call ``warm_up`` before the first step.
      warm_up: ``warm_up(state, key, data) -> state``; moves nothing that is ever released. None with no warm steps.
    """

    init: Callable[[jax.Array], PyTree]
    arrange: Callable[[jax.Array, jax.Array, jax.Array], PyTree]
    batch: Callable[[jax.Array, jax.Array, PyTree], PyTree]
    step: Callable[[PyTree, Any], tuple[PyTree, dict[str, jax.Array]]]
    example_loss: Callable[[PyTree, tuple[jax.Array, jax.Array], jax.Array], tuple[jax.Array, PyTree]] | None
    event: Callable[[int], dp_accounting.DpEvent]
    released: Callable[[PyTree], PyTree]
    generate: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    warm_steps: int = 0
    warm_up: Callable[[PyTree, jax.Array, PyTree], PyTree] | None = None
