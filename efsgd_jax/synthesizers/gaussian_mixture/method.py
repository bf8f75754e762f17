"""A generator without a network: a Gaussian mixture for each class, and a linear classifier that re-ranks its samples.

One full-batch Gaussian release pays for both (``fit_mixture``, ``fit_reranker``): a run is one step, of seconds. The
mixture is of images in one pose, and of their poses (``appearance``). To draw an image of class y, ``candidates`` are
drawn from the mixture and one of them is taken with a probability in proportion to the reranker's p(y | image), which
sharpens what one mixture for each class leaves blurred between classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.privacy.full_batch import FullBatchMechanism
from efsgd_jax.privacy.one_shot import share_noise
from efsgd_jax.synthesizers.base import Batch, Synthesizer
from efsgd_jax.synthesizers.gaussian_mixture.appearance import AppearanceOptions, to_image, to_vectors, vector_size
from efsgd_jax.synthesizers.gaussian_mixture.fit import FitOptions, fit_mixture
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, draw
from efsgd_jax.synthesizers.gaussian_mixture.reranker import (
    fit_reranker,
    log_probabilities,
    num_features,
    oriented_gradients,
)

CHUNK = 2000
DRAWN_AT_ONCE = 100
# Of a vector: longer ones have a second moment of a gigabyte, and need more examples than there ever are.
MAX_SIZE = 4200


@dataclasses.dataclass(frozen=True)
class Hyperparameters(FitOptions, AppearanceOptions):
    """Those of images as vectors, of the mixture, and of the reranker.

    Attributes:
      candidates: drawn for each image; 1 leaves the reranker out.
      reranker_share: of the budget 1/sigma^2 that pays for the reranker; the mixture has the rest.
      reranker_steps: of full-batch gradient descent.
      reranker_clip: l2 norm of an example's gradient.
      reranker_learning_rate: of the first step, in units of the clip norm.
    """

    candidates: int = 8
    reranker_share: float = 0.1
    reranker_steps: int = 60
    reranker_clip: float = 0.6
    reranker_learning_rate: float = 6.0


class State(NamedTuple):
    """Everything that the step changes; ``params`` are ``mixture``, as a dict, and ``reranker``, ``[F, K]``."""

    step: jax.Array
    key: jax.Array
    params: dict[str, Any]


def empty(spec: ImageSpec, hp: Hyperparameters) -> dict[str, Any]:
    """The parameters, in zeros."""
    k, m = spec.num_classes, hp.components
    size = vector_size(spec, hp)
    d = min(hp.directions, size)
    reranker = jnp.zeros((num_features(spec.shape), k))
    mixture = Mixture(
        means=jnp.zeros((k, size)),
        basis=jnp.zeros((size, d)),
        weights=jnp.zeros((k, m)),
        centres=jnp.zeros((k, m, d)),
        axes=jnp.zeros((k, m, d, d)),
        variances=jnp.zeros((k, m, d)),
    )
    return {"mixture": mixture._asdict(), "reranker": reranker}


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is released."""
    return jax.eval_shape(lambda: empty(spec, hp))


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """``Synthesizer.generate`` alone: all that a released generator needs."""

    def one(params: Any, key: jax.Array, label: jax.Array) -> jax.Array:
        draw_key, image_key, choice_key = jax.random.split(key, 3)
        mixture = Mixture(**params["mixture"])
        drawn = jax.vmap(lambda k: draw(mixture, k, label))(jax.random.split(draw_key, hp.candidates))
        images = jax.vmap(lambda k, v: to_image(k, v, spec, hp))(jax.random.split(image_key, hp.candidates), drawn)
        if hp.candidates == 1:
            return images[0]
        scores = log_probabilities(params["reranker"], oriented_gradients(images))
        return images[jax.random.categorical(choice_key, scores[:, label])]

    def generate(params: Any, key: jax.Array, labels: jax.Array) -> jax.Array:
        keys = jax.random.split(key, labels.shape[0])
        # A few at a time: a component's axes are a matrix, and each candidate has its own.
        return 2 * jax.lax.map(lambda x: one(params, *x), (keys, labels), batch_size=DRAWN_AT_ONCE) - 1

    return generate


def gaussian_mixture(spec: ImageSpec, hyperparameters: Hyperparameters, mechanism: FullBatchMechanism) -> Synthesizer:
    """Binds the method to a data set's shape and to a mechanism: one step on all records.

    Formal guarantees:
      The step is one ``GaussianDpEvent(mechanism.noise_multiplier)``, divided among the reranker's steps and the
      mixture's releases by ``share_noise``. A second step would be charged as a second release.
    """
    hp = hyperparameters
    if hp.low_pass > spec.image_size:
        raise UserError(f"config.method.low_pass is {hp.low_pass}; images have {spec.image_size} pixels a side")
    size = vector_size(spec, hp)
    if size > MAX_SIZE:
        raise UserError(
            f"config.method.name gaussian_mixture keeps a second moment of {size} numbers an image, and {MAX_SIZE} "
            "are the most; set --config.method.low_pass=16 (16x16 coefficients) or a smaller --config.data.image_size"
        )

    def init(key: jax.Array) -> State:
        return State(jnp.zeros((), jnp.int32), key, empty(spec, hp))

    def batch(key: jax.Array, step: jax.Array, data: Batch) -> Batch:
        del key, step
        return data

    def arrange(key: jax.Array, images: jax.Array, labels: jax.Array) -> Batch:
        del key
        n = labels.shape[0]
        return Batch(images, labels.astype(jnp.int32), jnp.ones(n, bool), jnp.arange(n))

    def step(state: State, records: Batch) -> tuple[State, dict[str, jax.Array]]:
        images, labels = records.images, records.labels
        mixture_key, reranker_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        sigma, accuracy = mechanism.noise_multiplier, jnp.array(jnp.nan)
        reranker = state.params["reranker"]
        if hp.candidates > 1:
            for_reranker, sigma = share_noise(sigma, [hp.reranker_share, 1 - hp.reranker_share])
            features = _in_chunks(images)
            reranker = fit_reranker(
                reranker_key,
                features,
                labels,
                spec.num_classes,
                for_reranker,
                steps=hp.reranker_steps,
                l2_norm_clip=hp.reranker_clip,
                learning_rate=hp.reranker_learning_rate,
            )
            accuracy = jnp.mean(jnp.argmax(features @ reranker, axis=1) == labels)
        mixture = fit_mixture(mixture_key, to_vectors(images, hp), labels, spec.num_classes, sigma, hp)
        metrics = {"batch_size": jnp.asarray(labels.shape[0], jnp.float32), "reranker_accuracy": accuracy}
        params = {"mixture": mixture._asdict(), "reranker": reranker}
        return State(state.step + 1, state.key, params), metrics

    return Synthesizer(
        init=init,
        arrange=arrange,
        batch=batch,
        step=step,
        example_loss=None,
        event=mechanism.event,
        released=lambda state: state.params,
        generate=make_generate(spec, hp),
    )


def _in_chunks(images: jax.Array) -> jax.Array:
    """Features of uint8 images; a chunk's gradient maps are many times larger than the features."""
    return jax.lax.map(
        lambda image: oriented_gradients(image[None].astype(jnp.float32) / 255)[0], images, batch_size=CHUNK
    )
