"""The classifier of the attack reports: a small CNN, trained plainly, on images changed at random, or adversarially."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.data.dataset import to_unit_range
from efsgd_jax.models.layers import Conv
from efsgd_jax.training.compilation import compiler_options

# Number of images for which the network is evaluated at a time.
CHUNK = 500
# Changes a batch of images in [-1, 1] at random, afresh in each step: ``augment(images, key)``.
Augment = Callable[[jax.Array, jax.Array], jax.Array]


class Cnn(nn.Module):
    """Two convolutions, the first of them strided, and one linear layer.

    Strides replace most of the pooling, whose gradient takes long on a CPU.

    Attributes:
      num_classes: number K of classes.
      width: channels of the first convolution; the second has twice as many.
    """

    num_classes: int
    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, dropout_key: jax.Array | None = None) -> jax.Array:
        """Maps images in [-1, 1], ``[B, S, S, C]``, to logits ``[B, K]``; with dropout 0.5 if there is a key."""
        x = nn.relu(Conv(self.width, kernel_size=5, stride=2)(x))
        x = nn.relu(Conv(2 * self.width, kernel_size=3)(x))
        x = nn.avg_pool(x, (2, 2), (2, 2), padding="SAME", count_include_pad=False)
        x = x.reshape(x.shape[0], -1)
        if dropout_key is not None:
            x = jnp.where(jax.random.bernoulli(dropout_key, 0.5, x.shape), 2.0 * x, 0.0)
        return nn.Dense(self.num_classes)(x)


class Training(NamedTuple):
    """How the classifier is trained: Adam with cosine decay, batches drawn with replacement.

    Attributes:
      steps: number of steps.
      batch_size: images of a step.
      learning_rate: that of the first step; it decays to 0.
      adversary: largest change of a pixel, in 255ths, by which each batch is first made hard by one step along the
        sign of the gradient (fast adversarial training, arXiv 2001.03994); 0 for none.
    """

    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 3e-3
    adversary: float = 0.0


class Classifier(NamedTuple):
    """A trained network; its method takes uint8 images ``[N, S, S, C]``."""

    num_classes: int
    params: optax.Params

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The share of images whose most probable class is their label."""
        return float(np.mean(self.predict(images) == labels))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The most probable class of each image, int ``[N]``."""
        parts = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
        logits = [_apply(Cnn(self.num_classes), self.params, to_unit_range(part)) for part in parts]
        return np.concatenate([np.argmax(x, axis=1) for x in logits])


@functools.partial(jax.jit, static_argnums=0)
def _apply(model: Cnn, params: optax.Params, x: jax.Array) -> jax.Array:
    return jnp.asarray(model.apply(params, x))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    training: Training | None = None,
    augment: Augment | None = None,
) -> Classifier:
    """Trains the network from a new initialisation; the same arguments give the same network.

    Args:
      images: uint8 ``[N, S, S, C]``.
      labels: int ``[N]`` in ``0..K - 1``.
      num_classes: number K of classes.
      seed: of initial weights, batches, dropout, random changes and the adversary's start.
      training: how to train; None for the defaults.
      augment: changes each batch; None for no change.
    """
    how = training or Training()
    first, update = _steps(num_classes, how, augment)
    key, rng = jax.random.key(seed), np.random.default_rng(seed)
    state = first(key, to_unit_range(images[:1]))
    for step in range(how.steps):
        rows = rng.integers(len(images), size=how.batch_size)
        state = update(state, images[rows], labels[rows], jax.random.fold_in(key, step))
    return Classifier(num_classes, state[0])


State = tuple[optax.Params, optax.OptState]


@functools.lru_cache(maxsize=8)
def _steps(
    num_classes: int, how: Training, augment: Augment | None
) -> tuple[Callable[[jax.Array, np.ndarray], State], Callable[..., State]]:
    """The first state, and a step; kept, because an attack report trains many networks by one program."""
    model = Cnn(num_classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(how.learning_rate, how.steps))
    radius = how.adversary / 127.5

    def first(key: jax.Array, x: np.ndarray) -> State:
        params = model.init(key, x)
        return params, optimizer.init(params)

    def loss(params: optax.Params, x: jax.Array, y: jax.Array, key: jax.Array | None = None) -> jax.Array:
        return cross_entropy(jnp.asarray(model.apply(params, x, key)), y)

    def hardened(params: optax.Params, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
        """A start within the radius at random, and a step of 1.25 radii along the gradient's sign (2001.03994)."""
        start = jnp.clip(x + radius * jax.random.uniform(key, x.shape, minval=-1), -1, 1)
        moved = start + 1.25 * radius * jnp.sign(jax.grad(loss, argnums=1)(params, start, y))
        return jnp.clip(jnp.clip(moved, x - radius, x + radius), -1, 1)

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=compiler_options(lowest_level=1))
    def update(state: State, images: jax.Array, y: jax.Array, key: jax.Array) -> State:
        params, moments = state
        keys = jax.random.split(key, 3)
        x = images.astype(jnp.float32) / 127.5 - 1
        x = augment(x, keys[0]) if augment else x
        x = hardened(params, x, y, keys[1]) if radius else x
        updates, moments = optimizer.update(jax.grad(loss)(params, x, y, keys[2]), moments)
        return optax.apply_updates(params, updates), moments

    return first, update
