"""The two generators that are matched: one of noise, and one that corrects the images of a private mixture."""

from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.generator import Generator
from efsgd_jax.synthesizers import efsgd_mixture
from efsgd_jax.synthesizers.base import Generate, Released
from efsgd_jax.synthesizers.efsgd_mixture.method import Decoder, check_size
from efsgd_jax.synthesizers.gaussian_mixture.method import published
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, draw
from efsgd_jax.synthesizers.pearl.config import Hyperparameters
from efsgd_jax.synthesizers.public_autoencoder import NAME

PyTree = Any


class Start(Protocol):
    """A generator that can be matched."""

    def init(self, key: jax.Array) -> PyTree:
        """The network's first parameters."""

    def needs(self, released: Released) -> dict[str, PyTree]:
        """What of earlier releases the images depend on."""

    def images(self, params: PyTree, key: jax.Array, labels: jax.Array, released: dict[str, PyTree]) -> jax.Array:
        """Images ``[B, S, S, C]`` in [0, 1], for labels ``[B]``."""

    def published(self, params: PyTree, released: dict[str, PyTree]) -> PyTree:
        """What the run publishes."""

    def released_like(self) -> PyTree:
        """Shapes and dtypes of ``published``."""

    def make_generate(self) -> Generate:
        """See ``Method.make_generate``."""


class FromNoise(NamedTuple):
    """Noise becomes an image."""

    spec: ImageSpec
    hp: Hyperparameters

    @property
    def network(self) -> Generator:
        return Generator(self.spec, self.hp.width, noise_injection=self.hp.noise_injection)

    def init(self, key: jax.Array) -> PyTree:
        inputs = jnp.zeros((1, self.hp.latent)), jnp.zeros(1, jnp.int32)
        return self.network.init({"params": key, "noise": key}, *inputs)

    def needs(self, released: Released) -> dict[str, PyTree]:
        return {}

    def images(self, params: PyTree, key: jax.Array, labels: jax.Array, released: dict[str, PyTree]) -> jax.Array:
        return (1 + self.make_generate()({"generator": params}, key, labels)) / 2

    def published(self, params: PyTree, released: dict[str, PyTree]) -> PyTree:
        return {"generator": params}

    def released_like(self) -> PyTree:
        return {"generator": jax.eval_shape(self.init, jax.random.key(0))}

    def make_generate(self) -> Generate:
        def generate(params: PyTree, key: jax.Array, labels: jax.Array) -> jax.Array:
            latent_key, noise_key = jax.random.split(key)
            z = jax.random.normal(latent_key, (len(labels), self.hp.latent))
            return cast(jax.Array, self.network.apply(params["generator"], z, labels, rngs={"noise": noise_key}))

        return generate


class FromMixture(NamedTuple):
    """The decoder of ``efsgd_mixture``, which corrects the images of a mixture; it starts as the mixture."""

    spec: ImageSpec
    hp: Hyperparameters

    def init(self, key: jax.Array) -> PyTree:
        return self._decoder().init(key)

    def _decoder(self) -> Decoder:
        return Decoder(self.spec, self.hp)  # type: ignore[arg-type]

    def needs(self, released: Released) -> dict[str, PyTree]:
        return {"mixture": published(released)}

    def images(self, params: PyTree, key: jax.Array, labels: jax.Array, released: dict[str, PyTree]) -> jax.Array:
        mixture, keys = Mixture(**released["mixture"]["mixture"]), jax.random.split(key, (2, len(labels)))
        vectors = jax.vmap(lambda k, y: draw(mixture, k, y))(keys[0], labels)
        autoencoder = released["mixture"].get(NAME)
        images = self._decoder()(params, mixture, vectors, labels, keys[1], self.hp.deformation, autoencoder)
        return jnp.clip(images, 0.0, 1.0)

    def published(self, params: PyTree, released: dict[str, PyTree]) -> PyTree:
        return {**released["mixture"], "decoder": params}

    def released_like(self) -> PyTree:
        return efsgd_mixture.METHOD.released_like(self.spec, self.hp)

    def make_generate(self) -> Generate:
        return efsgd_mixture.METHOD.make_generate(self.spec, self.hp)


def start_of(spec: ImageSpec, hp: Hyperparameters) -> Start:
    """The generator of a configuration.

    Raises:
      UserError: images of an odd size, with the mixture.
    """
    if hp.start == "noise":
        return FromNoise(spec, hp)
    check_size(spec, "pearl")
    return FromMixture(spec, hp)
