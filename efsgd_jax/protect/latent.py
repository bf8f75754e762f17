"""The latent of a released generator: an image's code u, about normal, and the image of a code and a class."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.data import ImageSpec, to_uint8
from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.efsgd_mixture.method import Decoder
from efsgd_jax.synthesizers.gaussian_mixture.appearance import more_contrast, to_image, to_vector
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture
from efsgd_jax.synthesizers.public_autoencoder import NAME

# Methods whose latent is the code of a mixture.
MIXTURES = ("gaussian_mixture", "efsgd_mixture", "p3gm")
# Steps by which the code of an image is found for a generator without an encoder.
INVERSION_STEPS, INVERSION_RATE = 150, 0.05
# Number of images that are encoded or decoded at a time.
CHUNK = 100
# Of images or codes, and of their classes.
Coder = Callable[[jax.Array, jax.Array], jax.Array]


class Latent(NamedTuple):
    """A generator's latent of d dimensions.

    Attributes:
      encode: ``encode(images, labels) -> codes``: uint8 ``[N, S, S, C]``, int ``[N]`` -> float32 ``[N, d]``.
      decode: ``decode(codes, labels) -> images``: float32 ``[N, S, S, C]`` in [0, 1], differentiable in the codes.
      size: number d of components of a code.
      spec: shape of the images and number of classes.
      class_names: names of the classes, in the order of the labels.
    """

    encode: Coder
    decode: Coder
    size: int
    spec: ImageSpec
    class_names: tuple[str, ...]

    def codes(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """``encode``, in chunks."""
        return _in_chunks(self.encode, images, labels)

    def images(self, codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """``decode``, in chunks: uint8 ``[N, S, S, C]``."""
        return to_uint8(2 * _in_chunks(self.decode, codes, labels) - 1)

    def numbered(self, numbers: np.ndarray) -> "Latent":
        """The same for other numbers of the classes: ``numbers[y]`` is the generator's number of class y."""
        own = jnp.asarray(numbers)
        return self._replace(
            encode=lambda x, y: self.encode(x, own[y]),
            decode=lambda u, y: self.decode(u, own[y]),
            class_names=tuple(self.class_names[i] for i in numbers),
            spec=dataclasses.replace(self.spec, num_classes=len(numbers)),
        )


def latent_of(run: str | Path) -> Latent:
    """The latent of the generator that a finished run released; nothing else of the run is read.

    Raises:
      UserError: there is no finished run, or its method has no latent that can be searched.
    """
    directory = Workdir(run)
    released = released_generator(directory)
    settings = read_json(directory.config)["config"]["method"]
    method = method_named(settings["name"])
    hp, params = method.read(settings), jax.tree.map(jnp.asarray, released.params)
    if settings["name"] in MIXTURES:
        coders, size = _of_mixture(params, released.spec, hp), params["mixture"]["basis"].shape[1]
    elif method.make_generator:
        coders, size = _of_network(method.make_generator(released.spec, hp), params, hp.latent), hp.latent
    else:
        known = ", ".join((*MIXTURES, "efsgd_gan", "sanitized_gan"))
        raise UserError(
            f"{run} is a run of {settings['name']}, whose latent cannot be searched; name a run of one of {known}"
        )
    return Latent(*coders, size, released.spec, released.class_names)


def class_normals(mixture: Mixture) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean c ``[K, d]`` of each class's codes z, and A, its inverse ``[K, d, d]``: ``z = c + A u`` for u of unit
    covariance.

    Directions without variance are left out, so that A is not always invertible; its inverse is then a pseudo-inverse.
    """
    m = mixture
    mean = jnp.einsum("km,kmi->ki", m.weights, m.centres)
    apart = m.centres - mean[:, None]
    within = jnp.einsum("km,kmij,kmj,kmlj->kil", m.weights, m.axes, m.variances, m.axes)
    values, vectors = jnp.linalg.eigh(within + jnp.einsum("km,kmi,kmj->kij", m.weights, apart, apart))
    there = values > 1e-6 * values[:, -1:]
    root = jnp.sqrt(jnp.where(there, values, 1.0))
    forward = vectors * (root * there)[:, None]
    back = jnp.swapaxes(vectors * (there / root)[:, None], 1, 2)
    return mean, forward, back


def _of_mixture(params: Any, spec: ImageSpec, hp: Any) -> tuple[Coder, Coder]:
    mixture, autoencoder = Mixture(**params["mixture"]), params.get(NAME)
    mean, forward, back = class_normals(mixture)
    plain = dataclasses.replace(hp, deformation=0.0)
    decoder = Decoder(spec, hp) if "decoder" in params else None

    def encode(images: jax.Array, labels: jax.Array) -> jax.Array:
        vectors = jax.vmap(lambda x: to_vector(x, hp, autoencoder))(images)
        z = (vectors - mixture.means[labels]) @ mixture.basis
        return jnp.einsum("kij,kj->ki", back[labels], z - mean[labels])

    def decode(codes: jax.Array, labels: jax.Array) -> jax.Array:
        z = mean[labels] + jnp.einsum("kij,kj->ki", forward[labels], codes)
        vectors = mixture.means[labels] + z @ mixture.basis.T
        keys = jax.random.split(jax.random.key(0), len(codes))
        if decoder is None:
            return jax.vmap(lambda k, v: to_image(k, v, spec, plain, autoencoder))(keys, vectors)
        images = decoder(params["decoder"], mixture, vectors, labels, keys, 0.0, autoencoder)
        return more_contrast(images, hp)

    return encode, decode


def _of_network(generator: Any, params: Any, size: int) -> tuple[Coder, Coder]:
    def decode(codes: jax.Array, labels: jax.Array) -> jax.Array:
        images = generator.apply(params, codes, labels, rngs={"noise": jax.random.key(0)})
        return (images.astype(jnp.float32) + 1) / 2

    def encode(images: jax.Array, labels: jax.Array) -> jax.Array:
        wanted, adam = images / 255.0, optax.adam(INVERSION_RATE)

        def error(codes: jax.Array) -> jax.Array:
            apart = jnp.sum(jnp.square(decode(codes, labels) - wanted), axis=(1, 2, 3))
            return jnp.sum(apart + 0.01 * jnp.sum(jnp.square(codes), axis=1))

        def step(_: int, state: Any) -> Any:
            codes, moments = state
            updates, moments = adam.update(jax.grad(error)(codes), moments)
            return optax.apply_updates(codes, updates), moments

        start = jnp.zeros((len(images), size))
        return jax.lax.fori_loop(0, INVERSION_STEPS, step, (start, adam.init(start)))[0]

    return encode, decode


def _in_chunks(coder: Coder, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    coder = jax.jit(coder)
    return np.concatenate(
        [coder(x[i : i + CHUNK], jnp.asarray(labels[i : i + CHUNK])) for i in range(0, len(x), CHUNK)]
    )
