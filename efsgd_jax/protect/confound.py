"""Images that are hard to learn from: small noise that is tied to the image and to its label.

ConfounderGAN, arXiv 2212.01767 (NeurIPS 2022). A generator G gives every image x with label y a noise n = G(x, y) of at
most ``radius``. A classifier f has to read y off the noise; a discriminator keeps x + n natural. A network that is
trained on x + n learns the noise, which is easier than the picture, and has learned nothing of use for clean images.
One forward pass protects a new image.

The paper's code is not published, so that networks and weights are choices of ours. In two points we differ:

- f, which was trained on clean images, learns on beside G, and reads n on images of any class. Noise that a fixed f
  reads is bound to what small changes move f, and a network that begins anew learns it more slowly.
- f reads n as another class, ``stand_in(y)``. Otherwise n resembles what f knows of class y, and who learns n learns
  something of y (arXiv 2106.10807 found the same of adversarial examples).

``class_patches`` is the baseline: one random pattern of squares for each class (arXiv 2111.00898 has such patterns).
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.data.dataset import to_unit_range
from efsgd_jax.models.layers import Conv, UpsamplingConv, leaky_relu
from efsgd_jax.protect.classifier import CHUNK, Classifier, Cnn, cross_entropy
from efsgd_jax.protect.likeness import psnr
from efsgd_jax.training.compilation import compiler_options

# What a pixel may change by, in 255ths, if nothing else is asked: for images with one channel, and with three.
RADIUS = {1: 16, 3: 8}
# Squares of the baseline's patterns along each side of the image.
SQUARES = 8


# Those of the generator and f together, and the discriminator's: parameters, or states of optimisers.
Pair = tuple[Any, Any]


class Confounding(NamedTuple):
    """How the generator is trained.

    Attributes:
      steps: number of steps.
      batch_size: images of a step.
      learning_rate: of Adam, for both networks.
      naturalness: weight of the discriminator in the generator's loss.
      correlation: weight of the correlation of the noise with its image, over pixels; more makes the noise follow the
        image rather than the label.
    """

    steps: int = 150
    batch_size: int = 64
    learning_rate: float = 4e-3
    naturalness: float = 0.01
    correlation: float = 0.1


class Generator(nn.Module):
    """Maps images and labels to noise in (-1, 1), at half of their resolution within, for any size of image."""

    num_classes: int
    width: int = 24

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """``x`` in [-1, 1], ``[B, S, S, C]``, and labels ``[B]`` to ``[B, S, S, C]``."""
        size, channels = x.shape[1], x.shape[3]
        h = leaky_relu(Conv(self.width, kernel_size=3, stride=2)(x))
        # A map for each class, beside what is seen of the image: the noise is tied to both.
        maps = self.width * nn.Embed(self.num_classes, h[0].size)(y).reshape(h.shape)
        h = leaky_relu(Conv(self.width)(h) + Conv(self.width)(maps))
        return jnp.tanh(UpsamplingConv(channels)(h)[:, :size, :size])


class Discriminator(nn.Module):
    """A logit for each image: is it clean?"""

    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in (self.width, 2 * self.width):
            x = leaky_relu(Conv(width, kernel_size=5, stride=2)(x))
        return nn.Dense(1)(x.reshape(x.shape[0], -1))[:, 0]


class Confounder(NamedTuple):
    """A trained generator.

    Attributes:
      num_classes: number K of classes.
      params: its parameters.
      reader: the classifier f, as it has become beside the generator.
    """

    num_classes: int
    params: optax.Params
    reader: Classifier

    def noise(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The noise for uint8 images ``[N, S, S, C]``: float32 of their shape, in (-1, 1)."""
        model = Generator(self.num_classes)
        parts = [
            _noise(model, self.params, to_unit_range(images[i : i + CHUNK]), labels[i : i + CHUNK])
            for i in range(0, len(images), CHUNK)
        ]
        return np.concatenate([np.asarray(part) for part in parts])


@functools.partial(jax.jit, static_argnums=0)
def _noise(model: Generator, params: optax.Params, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.asarray(model.apply(params, x, y))


def train_confounder(
    images: np.ndarray,
    labels: np.ndarray,
    classifier: Classifier,
    radius: int,
    seed: int,
    options: Confounding | None = None,
) -> Confounder:
    """Trains G and f together: ``min CE(f(x' + n), y') + a corr(x, n) + b BCE(D(x + n), 1)`` with n = radius G(x, y).

    y' is ``stand_in(y)``, and x' another image of the batch, of any class, so that the noise has to stand for its label
    on whatever picture.
    Alternating with it, D learns to tell x + n from x.

    Args:
      images: uint8 ``[N, S, S, C]``.
      labels: int ``[N]``.
      classifier: f at first, trained on clean images of the same classes.
      radius: largest change of a pixel, in 255ths.
      seed: of initial weights, batches and pairs.
      options: how to train; None for the defaults.

    Formal guarantees:
      None: the noise is made against one network, and hides nothing of the images.
    """
    how = options or Confounding()
    generator, discriminator, read = Generator(classifier.num_classes), Discriminator(), Cnn(classifier.num_classes)
    optimizer, scale = optax.adam(how.learning_rate), radius / 127.5

    def clean_logit(opponent: optax.Params, x: jax.Array) -> jax.Array:
        return jnp.asarray(discriminator.apply(opponent, x))

    def losses(ours: Pair, opponent: optax.Params, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[Any, Any]:
        params, reader = ours
        noise = scale * jnp.asarray(generator.apply(params, x, y))
        others = jax.random.permutation(key, x)
        logits = jnp.asarray(read.apply(reader, jnp.clip(others + noise, -1, 1)))
        read_off = cross_entropy(logits, stand_in(y, classifier.num_classes))
        natural = jax.nn.softplus(-clean_logit(opponent, x + noise)).mean()
        return read_off + how.correlation * correlation(x, noise) + how.naturalness * natural, x + noise

    def told_apart(opponent: optax.Params, clean: jax.Array, changed: jax.Array) -> jax.Array:
        clean, changed = clean_logit(opponent, clean), clean_logit(opponent, changed)
        return jax.nn.softplus(-clean).mean() + jax.nn.softplus(changed).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1), compiler_options=compiler_options(lowest_level=1))
    def update(params: Pair, states: Pair, images: jax.Array, y: jax.Array, key: jax.Array) -> tuple[Pair, Pair]:
        x = images.astype(jnp.float32) / 127.5 - 1
        ours, changed = jax.grad(losses, has_aux=True)(*params, x, y, key)
        gradients = ours, jax.grad(told_apart)(params[1], x, changed)
        (a, first), (b, second) = (optimizer.update(g, s) for g, s in zip(gradients, states, strict=True))
        return (optax.apply_updates(params[0], a), optax.apply_updates(params[1], b)), (first, second)

    key, image = jax.random.key(seed), to_unit_range(images[:1])
    reader = jax.tree.map(jnp.array, classifier.params)  # a copy: what ``update`` is given, it overwrites
    ours = generator.init(key, image, labels[:1]), reader
    params: Pair = ours, discriminator.init(jax.random.fold_in(key, how.steps), image)
    states: Pair = optimizer.init(params[0]), optimizer.init(params[1])
    rng = np.random.default_rng(seed)
    for step in range(how.steps):
        rows = rng.integers(len(images), size=how.batch_size)
        params, states = update(params, states, images[rows], labels[rows], jax.random.fold_in(key, step))
    (trained, reader), _ = params
    return Confounder(classifier.num_classes, trained, Classifier(classifier.num_classes, reader))


def stand_in(labels: Any, num_classes: int) -> Any:
    """The class as which f reads the noise of a class: the next one."""
    return (labels + 1) % num_classes


def correlation(x: jax.Array, noise: jax.Array) -> jax.Array:
    """Pearson's correlation over the values of an image, mean of the batch ``[B, ...]``; of a constant, 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(8.0).reshape(1, 2, 2, 2)
      >>> round(float(correlation(x, 3 - 2 * x)), 4)
      -1.0
    """
    x, noise = (v.reshape(len(v), -1) for v in (x, noise))
    x, noise = (v - v.mean(axis=1, keepdims=True) for v in (x, noise))
    spread = jnp.sqrt((x**2).mean(axis=1) * (noise**2).mean(axis=1) + 1e-8)
    return ((x * noise).mean(axis=1) / spread).mean()


def class_patches(shape: tuple[int, int, int], num_classes: int, seed: int) -> np.ndarray:
    """For each class a random pattern of squares whose channels are -1 or 1: float32 ``[K, S, S, C]``.

    Examples:
      >>> patches = class_patches((28, 28, 1), 10, seed=0)
      >>> patches.shape, sorted(set(patches.ravel().tolist()))
      ((10, 28, 28, 1), [-1.0, 1.0])
    """
    size, _, channels = shape
    side = -(-size // SQUARES)
    cells = -(-size // side)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(num_classes, cells, cells, channels))
    return np.asarray(signs.repeat(side, axis=1).repeat(side, axis=2)[:, :size, :size], np.float32)


def add_noise(images: np.ndarray, noise: np.ndarray, radius: int) -> np.ndarray:
    """uint8 images whose pixels differ from ``images`` by at most ``radius``, exactly, after rounding.

    Args:
      images: uint8 ``[N, S, S, C]``.
      noise: of the same shape, in [-1, 1].
      radius: an integer, 0 or more.

    Examples:
      >>> import numpy as np
      >>> add_noise(np.array([[[[250]]]], np.uint8), np.array([[[[0.99]]]]), 8).item()
      255
    """
    change = np.clip(np.rint(radius * noise), -radius, radius).astype(np.int16)
    return np.clip(images.astype(np.int16) + change, 0, 255).astype(np.uint8)


def peak_signal_to_noise(images: np.ndarray, changed: np.ndarray) -> float:
    """PSNR of all pixels together, in dB; 100 if nothing changed: the errors of ``psnr`` of single images, averaged.

    Args:
      images: uint8 ``[N, S, S, C]``.
      changed: of the same shape and type.

    Examples:
      >>> import numpy as np
      >>> round(peak_signal_to_noise(np.zeros((1, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 8, np.uint8)), 2)
      30.07
    """
    errors = []
    for i in range(0, len(images), CHUNK):
        part = (jnp.asarray(x[i : i + CHUNK], jnp.float32) / 255 for x in (images, changed))
        errors.append(10 ** (-np.asarray(psnr(*part), np.float64) / 10))
    return float(-10 * np.log10(np.mean(np.concatenate(errors))))
