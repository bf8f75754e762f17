"""Trains a network for epochs over shuffled images, and keeps the epoch that is best on held-out images."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.evaluation.metrics.feature_classifier import CHUNK
from efsgd_jax.training.compilation import compiler_options

PyTree = Any
Predict = Callable[[np.ndarray], np.ndarray]


class TrainingOptions(NamedTuple):
    """How a published classifier is trained, without augmentation.

    Attributes:
      epochs: number of passes over the images that are not held out.
      batch_size: number of images in a step; in each epoch, images that do not fill a batch are left out.
      optimizer: function from the number of steps in an epoch (which learning-rate schedules may need) to the
        optimiser.
      held_out: share of the images that is held out, chosen at random. The network of the epoch with the best accuracy
        on them is kept.
      latest: whether the last of several equally good epochs is kept; otherwise the first is.
      ema_decay: decay of the moving average of the weights, which is evaluated in place of the weights; 0 for the
        weights themselves. After n steps the decay is at most ``(1 + n) / (10 + n)``.
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
      model: the Flax module; its ``apply`` takes images in [-1, 1] and the flag ``train``.
      variables: the averaged weights, and the statistics of batch normalisation.
      epoch: number of the epoch, from 1.
      held_out_accuracy: accuracy on the held-out images after that epoch, in [0, 1].
    """

    model: nn.Module
    variables: PyTree
    epoch: int
    held_out_accuracy: float

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The most probable class of each image: uint8 ``[N, S, S, C]`` -> int ``[N]``."""
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
    """Trains a network and returns it as it was after its best epoch.

    The same arguments give the same network, up to the backend's rounding.

    Args:
      model: Flax module whose ``apply(variables, x, train)`` returns logits ``[B, K]`` for float images
        ``[B, S, S, C]`` in [-1, 1]. It may have ``batch_stats`` and use the RNG stream ``"dropout"``.
      images: training images, uint8 ``[N, S, S, C]``, N at least 2.
      labels: their classes, int ``[N]``.
      options: how to train.
      seed: seed of the initial weights, the choice of held-out images, the order of images and dropout.

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
            state = _compiled_step()(model, options, batches, state, x, y, rows, key)
        variables = {"params": state.average, **state.statistics}
        accuracy = float(np.mean(_predict(model, variables, images[held_out]) == labels[held_out]))
        if accuracy > best.held_out_accuracy or (options.latest and accuracy == best.held_out_accuracy):
            best = TrainedNetwork(model, variables, epoch, accuracy)
    return best


def _initial(model: nn.Module, options: TrainingOptions, batches: int, image: np.ndarray, key: jax.Array) -> _State:
    statistics = dict(jax.jit(model.init, static_argnames="train")(key, _scaled(image), train=False))
    params = statistics.pop("params")
    return _State(params, params, statistics, options.optimizer(batches).init(params), jnp.zeros((), jnp.int32))


@functools.cache
def _compiled_step() -> Callable[..., _State]:
    return jax.jit(_step, static_argnums=(0, 1, 2), compiler_options=compiler_options(lowest_level=1))


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
    """The most probable classes, computed in chunks of one size, so that the network is compiled once."""
    size = min(CHUNK, len(images))
    chunks = [images[i : i + size] for i in range(0, len(images), size)]
    padded = [np.pad(chunk, [(0, size - len(chunk)), (0, 0), (0, 0), (0, 0)]) for chunk in chunks]
    return np.concatenate([_classes(model, variables, chunk) for chunk in padded])[: len(images)]


@functools.partial(jax.jit, static_argnums=0)
def _classes(model: nn.Module, variables: PyTree, images: jax.Array) -> jax.Array:
    return jnp.argmax(jnp.asarray(model.apply(variables, _scaled(images), train=False)), axis=-1)


def _scaled(images: jax.Array | np.ndarray) -> jax.Array:
    """Converts uint8 pixels to float32 in [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1.0
