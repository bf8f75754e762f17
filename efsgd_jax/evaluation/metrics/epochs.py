"""Training a network by epochs over shuffled images, of which some are held out and choose the epoch."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.evaluation.metrics.feature_classifier import CHUNK

PyTree = Any
Predict = Callable[[np.ndarray], np.ndarray]


class TrainingOptions(NamedTuple):
    """How a published classifier is trained, without augmentation.

    Attributes:
      epochs: passes over the images that are not held out.
      batch_size: images in a step; what does not fill a batch is left out of that epoch.
      optimizer: from the number of steps in an epoch, for schedules that count epochs.
      held_out: the share of the images, drawn at random, that is not trained on: the network of the epoch that got
        most of them right is kept.
      latest: whether among equally good epochs the last is kept, else the first.
      ema_decay: of the average of the weights that is scored instead of them, 0 for none. After n steps it is at most
        ``(1 + n) / (10 + n)``.
    """

    epochs: int
    batch_size: int
    optimizer: Callable[[int], optax.GradientTransformation]
    held_out: float = 0.1
    latest: bool = False
    ema_decay: float = 0.0


class TrainedNetwork(NamedTuple):
    """The network of the epoch that was kept.

    Attributes:
      model: its ``apply`` takes images in [-1, 1] and ``train``.
      variables: averaged weights, and the statistics of the layers that normalise by batch.
      epoch: from 1.
      held_out_accuracy: in [0, 1], after that epoch.
    """

    model: nn.Module
    variables: PyTree
    epoch: int
    held_out_accuracy: float

    def predict(self, images: np.ndarray) -> np.ndarray:
        """uint8 ``[N, S, S, C]`` -> int ``[N]``, the likeliest class."""
        return _predict(self.model, self.variables, images)


class _State(NamedTuple):
    params: PyTree
    average: PyTree
    statistics: PyTree
    optimizer: optax.OptState
    step: jax.Array


def train_by_epochs(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, options: TrainingOptions, seed: int = 0
) -> TrainedNetwork:
    """The same arguments give the same network, up to the backend's rounding.

    Args:
      model: ``apply(variables, x, train)`` gives logits ``[B, K]`` for float images ``[B, S, S, C]`` in [-1, 1];
        it may have ``batch_stats`` and draw from the RNG stream ``"dropout"``.
      images: uint8 ``[N, S, S, C]``, N at least 2.
      labels: int ``[N]``.
      options: see ``TrainingOptions``.
      seed: of the initial weights, the held-out part, the order and dropout.

    Formal guarantees:
      None: the network, and the epoch that is kept, are functions of the images, without noise.
    """
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    order = rng.permutation(len(labels))
    held_out, rest = np.split(order, [max(1, round(options.held_out * len(labels)))])
    batch_size = min(options.batch_size, len(rest))
    batches = len(rest) // batch_size
    x, y = jnp.asarray(images), jnp.asarray(labels, jnp.int32)

    state = _initial(model, options, batches, images[:1], key)
    best = TrainedNetwork(model, {}, 0, -1.0)
    for epoch in range(1, options.epochs + 1):
        for rows in rng.permutation(rest)[: batches * batch_size].reshape(batches, batch_size):
            state = _step(model, options, batches, state, x, y, rows, key)
        variables = {"params": state.average, **state.statistics}
        accuracy = float(np.mean(_predict(model, variables, images[held_out]) == labels[held_out]))
        if accuracy > best.held_out_accuracy or (options.latest and accuracy == best.held_out_accuracy):
            best = TrainedNetwork(model, variables, epoch, accuracy)
    return best


def _initial(model: nn.Module, options: TrainingOptions, batches: int, image: np.ndarray, key: jax.Array) -> _State:
    statistics = dict(jax.jit(model.init, static_argnames="train")(key, _scaled(image), train=False))
    params = statistics.pop("params")
    return _State(params, params, statistics, options.optimizer(batches).init(params), jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _step(
    model: nn.Module,
    options: TrainingOptions,
    batches: int,
    state: _State,
    images: jax.Array,
    labels: jax.Array,
    rows: jax.Array,
    key: jax.Array,
) -> _State:
    def loss(params: PyTree) -> tuple[jax.Array, PyTree]:
        logits, statistics = model.apply(
            {"params": params, **state.statistics},
            _scaled(images[rows]),
            train=True,
            mutable=list(state.statistics),
            rngs={"dropout": jax.random.fold_in(key, state.step)},
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean(), statistics

    gradient, statistics = jax.grad(loss, has_aux=True)(state.params)
    updates, optimizer = options.optimizer(batches).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    decay = jnp.minimum(options.ema_decay, (1 + step) / (10 + step))
    average = optax.incremental_update(params, state.average, 1 - decay)
    return _State(params, average, statistics, optimizer, step)


def _predict(model: nn.Module, variables: PyTree, images: np.ndarray) -> np.ndarray:
    """In chunks of one size, so that the network is compiled once."""
    size = min(CHUNK, len(images))
    chunks = [images[i : i + size] for i in range(0, len(images), size)]
    padded = [np.pad(chunk, [(0, size - len(chunk)), (0, 0), (0, 0), (0, 0)]) for chunk in chunks]
    return np.concatenate([_classes(model, variables, chunk) for chunk in padded])[: len(images)]


@functools.partial(jax.jit, static_argnums=0)
def _classes(model: nn.Module, variables: PyTree, images: jax.Array) -> jax.Array:
    return jnp.argmax(jnp.asarray(model.apply(variables, _scaled(images), train=False)), axis=-1)


def _scaled(images: jax.Array | np.ndarray) -> jax.Array:
    """uint8 -> float32 in [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1.0
