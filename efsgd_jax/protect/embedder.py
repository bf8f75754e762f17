"""Recognisers of single images: networks that give nearby vectors to small changes of one image, and to no other.

An identity is one image under small public changes: shift, turn, size and thickness. A network e is trained on pairs
of such changes (x_i, x'_i) by the contrastive loss of arXiv 2002.05709,

    - sum_i log exp(cos(e(x_i), e(x'_i)) / T) / sum_j exp(cos(e(x_i), e(x'_j)) / T)

An attacker who has the tool that made x'_i from x_i trains on such pairs in the place of changes.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.data.dataset import to_unit_range
from efsgd_jax.errors import UserError
from efsgd_jax.models.layers import Conv
from efsgd_jax.synthesizers.gaussian_mixture.pose import look_up, places
from efsgd_jax.training.compilation import compiler_options

# Number of images for which a network is evaluated at a time.
CHUNK = 500
# Temperature T of the loss.
TEMPERATURE = 0.1
# Bounds of the changes: shift in units of the image's side, turn in radians, log size, and thickness.
SHIFT, TURN, SIZE, THICKNESS = 0.04, 0.12, 0.05, 0.4


class Network(nn.Module):
    """Strided convolutions and two dense layers.

    Attributes:
      widths: channels of the convolutions.
      kernel: side of their windows.
      size: number E of components of an embedding.
    """

    widths: tuple[int, ...]
    kernel: int
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images in [-1, 1], ``[B, S, S, C]``, to embeddings of norm 1, ``[B, E]``."""
        for width in self.widths:
            x = nn.relu(Conv(width, kernel_size=self.kernel, stride=2)(x))
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return unit_norm(nn.Dense(self.size)(x))


# That of the built-in recogniser, and that of recognisers which attack what was made against it.
ATTACKED = Network(widths=(16, 32), kernel=5, size=64)
UNSEEN = Network(widths=(16, 32, 64), kernel=3, size=96)


class Embedder(NamedTuple):
    """A trained network."""

    network: Network
    params: optax.Params

    def recogniser(self) -> Callable[[jax.Array], jax.Array]:
        """The embeddings, of norm 1, ``[B, E]``, of float images in [0, 1], ``[B, S, S, C]``; differentiable."""
        return lambda x: jnp.asarray(self.network.apply(self.params, 2 * x - 1))

    def embed(self, images: np.ndarray) -> np.ndarray:
        """The embeddings of uint8 images ``[N, S, S, C]``: float32 ``[N, E]``."""
        parts = [to_unit_range(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
        return np.concatenate([_apply(self.network, self.params, part) for part in parts])


@functools.partial(jax.jit, static_argnums=0)
def _apply(network: Network, params: optax.Params, x: jax.Array) -> jax.Array:
    return jnp.asarray(network.apply(params, x))


def embedder_named(name: str, shape: tuple[int, int, int]) -> Callable[[jax.Array], jax.Array]:
    """The user's recogniser ``module:function``, from the current directory or an installed package.

    The function maps float images in [0, 1], ``[B, S, S, C]``, to embeddings ``[B, E]``; it is written in JAX, since
    the search differentiates it.

    Args:
      name: such as ``faces:embed`` for the function ``embed`` of ``faces.py``.
      shape: ``(S, S, C)`` of the images.

    Raises:
      UserError: there is no such function, or it does not return embeddings.
    """
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise UserError(f"--embed is {name!r}; it is module:function, such as faces:embed for embed in faces.py")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
        like, *others = (jax.eval_shape(found, jax.ShapeDtypeStruct((n, *shape), jnp.float32)) for n in (2, 7, CHUNK))
        jax.eval_shape(jax.grad(lambda x: jnp.sum(found(x))), jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"--embed={name} cannot be used ({type(error).__name__}: {said}); it is to take any number of images, and "
            "JAX has to be able to differentiate it"
        ) from error
    finally:
        sys.path.pop(0)
    sizes = [getattr(x, "shape", ()) for x in others]
    if getattr(like, "ndim", 0) != 2 or like.shape[0] != 2 or not jnp.issubdtype(like.dtype, jnp.floating):
        raise UserError(
            f"--embed={name} returns {like} for two images of {shape}; it is to return floats of shape (2, E)"
        )
    if sizes != [(7, like.shape[1]), (CHUNK, like.shape[1])]:
        raise UserError(f"--embed={name} returns shapes {sizes} for 7 and {CHUNK} images; it is to return one row each")
    return found


def unit_norm(x: jax.Array) -> jax.Array:
    """``x / |x|`` along the last axis; finite, with finite derivatives, for zeros."""
    return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


def changed(key: jax.Array, images: jax.Array) -> jax.Array:
    """A small random change of each image, float ``[B, S, S, C]``, uniform between the bounds of this module."""

    def change(key: jax.Array, image: jax.Array) -> jax.Array:
        right, down, turn, size, thickness = jax.random.uniform(key, (5,), minval=-1.0)
        a, b = places(image.shape[0])
        c, s = jnp.cos(TURN * turn), jnp.sin(TURN * turn)
        a, b = (jnp.exp(SIZE * size) * side for side in (c * a - s * b, s * a + c * b))
        image = look_up(image, a + SHIFT * right, b + SHIFT * down)
        thick, thin = (nn.max_pool(sign * image, (3, 3), padding="SAME") * sign for sign in (1, -1))
        weight = THICKNESS * jnp.abs(thickness)
        return (1 - weight) * image + weight * jnp.where(thickness > 0, thick, thin)

    return jax.vmap(change)(jax.random.split(key, len(images)), images)


class Training(NamedTuple):
    """How an embedder is trained: Adam with cosine decay, batches drawn with replacement."""

    steps: int = 500
    batch_size: int = 128
    learning_rate: float = 2e-3


def train_embedder(
    images: np.ndarray,
    labels: np.ndarray,
    network: Network,
    seed: int,
    training: Training | None = None,
    partners: np.ndarray | None = None,
) -> Embedder:
    """Trains a network by the contrastive loss; the same arguments give the same network.

    Half of the batches have images of one class, which are harder to tell from each other.

    Args:
      images: uint8 ``[N, S, S, C]``.
      labels: their classes, int ``[N]``.
      network: what is trained.
      seed: that of the initialisation, the batches and the changes.
      training: how to train; None for the defaults.
      partners: uint8 ``[N, R, S, S, C]``, what a tool made of each image, R times: pairs are an image and one of these,
        both changed. None for pairs of two changes of an image.
    """
    steps, batch_size, learning_rate = training or Training()
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def loss(params: optax.Params, x: jax.Array, partner: jax.Array) -> jax.Array:
        a, b = (jnp.asarray(network.apply(params, z)) for z in (x, partner))
        logits = a @ b.T / TEMPERATURE
        own = jnp.arange(len(x))
        return sum(optax.softmax_cross_entropy_with_integer_labels(z, own).mean() for z in (logits, logits.T))

    @functools.partial(jax.jit, donate_argnums=(0, 1), compiler_options=compiler_options(lowest_level=1))
    def update(
        params: optax.Params, state: optax.OptState, x: jax.Array, partner: jax.Array, key: jax.Array
    ) -> tuple[optax.Params, optax.OptState]:
        first, second = jax.random.split(key)
        x, partner = (2 * changed(k, z / 255.0) - 1 for k, z in ((first, x), (second, partner)))
        updates, state = optimizer.update(jax.grad(loss)(params, x, partner), state)
        return optax.apply_updates(params, updates), state

    key = jax.random.key(seed)
    params = network.init(key, to_unit_range(images[:1]))
    state = optimizer.init(params)
    rng = np.random.default_rng(seed)
    members = [rows for c in np.unique(labels) if len(rows := np.flatnonzero(labels == c)) > 1]
    for step in range(steps):
        among = members[rng.integers(len(members))] if step % 2 and members else np.arange(len(images))
        # Without replacement as far as there are enough: an image is no other than itself.
        rows = rng.choice(among, batch_size, replace=False) if len(among) >= batch_size else rng.permutation(among)
        rows = np.resize(rows, batch_size)
        partner = images[rows] if partners is None else partners[rows, rng.integers(partners.shape[1])]
        params, state = update(params, state, images[rows], partner, jax.random.fold_in(key, step))
    return Embedder(network, params)
