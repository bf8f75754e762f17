"""A generator without a network: a private mixture of Gaussians per class, and a private teacher that chooses.

One release of everybody pays for both (``fit_mixture``, ``fit_teacher``): a run is one step, of seconds. To draw an
image of class y, ``candidates`` are drawn from the mixture and one of them is taken with a probability in proportion to
the teacher's p(y | image), which sharpens what one mixture for each class leaves blurred between classes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.methods.mixture import Mixture, draw
from efsgd_jax.methods.mixture_fit import FitOptions, fit_mixture
from efsgd_jax.methods.synthesizer import Batch, Synthesizer
from efsgd_jax.methods.teacher import fit_teacher, log_probabilities, num_features, oriented_gradients
from efsgd_jax.privacy.mechanisms import Mechanism
from efsgd_jax.privacy.one_shot import share_noise

CHUNK = 2000
# Of an image: more have a second moment of a gigabyte, and nobody has the examples that it takes.
MAX_PIXELS = 4096


@dataclasses.dataclass(frozen=True)
class Hyperparameters(FitOptions):
    """Those of the mixture, and of the teacher.

    Attributes:
      candidates: drawn for each image; 1 leaves the teacher out.
      teacher_share: of the budget 1/sigma^2 that pays for the teacher; the mixture has the rest.
      teacher_steps: of full-batch gradient descent.
      teacher_clip: l2 norm of an example's gradient.
      teacher_learning_rate: of the first step, in units of the clip norm.
    """

    candidates: int = 4
    teacher_share: float = 0.1
    teacher_steps: int = 60
    teacher_clip: float = 0.6
    teacher_learning_rate: float = 6.0


class State(NamedTuple):
    """Everything that the step changes; ``params`` are ``mixture``, as a dict, and ``teacher``, ``[F, K]``."""

    step: jax.Array
    key: jax.Array
    params: dict[str, Any]


def empty(spec: ImageSpec, hp: Hyperparameters) -> dict[str, Any]:
    """The parameters, in zeros."""
    k, m = spec.num_classes, hp.components
    pixels = spec.image_size**2 * spec.channels
    d = min(hp.directions, pixels)
    teacher = jnp.zeros((num_features(spec.shape), k))
    mixture = Mixture(
        means=jnp.zeros((k, pixels)),
        basis=jnp.zeros((pixels, d)),
        weights=jnp.zeros((k, m)),
        centres=jnp.zeros((k, m, d)),
        axes=jnp.zeros((k, m, d, d)),
        variances=jnp.zeros((k, m, d)),
    )
    return {"mixture": mixture._asdict(), "teacher": teacher}


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is released."""
    return jax.eval_shape(lambda: empty(spec, hp))


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """``Synthesizer.generate`` alone: all that a released generator needs."""

    def generate(params: Any, key: jax.Array, labels: jax.Array) -> jax.Array:
        draw_key, choice_key = jax.random.split(key)
        images = draw(Mixture(**params["mixture"]), draw_key, jnp.repeat(labels, hp.candidates))
        images = jnp.clip(images, -1.0, 1.0).reshape(-1, *spec.shape)
        if hp.candidates == 1:
            return images
        scores = log_probabilities(params["teacher"], oriented_gradients((images + 1) / 2))
        own = scores.reshape(labels.shape[0], hp.candidates, -1)
        own = jnp.take_along_axis(own, labels[:, None, None], axis=2)[..., 0]
        chosen = jax.random.categorical(choice_key, own)
        return images.reshape(labels.shape[0], hp.candidates, *spec.shape)[jnp.arange(labels.shape[0]), chosen]

    return generate


def private_mixture(spec: ImageSpec, hyperparameters: Hyperparameters, mechanism: Mechanism) -> Synthesizer:
    """Binds the method to a data set's shape and to a mechanism: one step with everybody, summing statistics.

    Formal guarantees:
      The step is one ``GaussianDpEvent(mechanism.noise_multiplier)``, divided among the teacher's steps and the
      mixture's releases by ``share_noise``. A second step would be charged as a second release.
    """
    hp = hyperparameters
    pixels = spec.image_size**2 * spec.channels
    if pixels > MAX_PIXELS:
        raise UserError(
            f"config.method.name private_mixture keeps a second moment of all pixels, and images have {pixels}; set "
            f"--config.data.image_size so that there are at most {MAX_PIXELS}"
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

    def step(state: State, everybody: Batch) -> tuple[State, dict[str, jax.Array]]:
        images, labels = everybody.images, everybody.labels
        mixture_key, teacher_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        sigma, accuracy = mechanism.noise_multiplier, jnp.array(jnp.nan)
        teacher = state.params["teacher"]
        if hp.candidates > 1:
            for_teacher, sigma = share_noise(sigma, [hp.teacher_share, 1 - hp.teacher_share])
            features = _in_chunks(images)
            teacher = fit_teacher(
                teacher_key,
                features,
                labels,
                spec.num_classes,
                for_teacher,
                steps=hp.teacher_steps,
                l2_norm_clip=hp.teacher_clip,
                learning_rate=hp.teacher_learning_rate,
            )
            accuracy = jnp.mean(jnp.argmax(features @ teacher, axis=1) == labels)
        mixture = fit_mixture(mixture_key, images, labels, spec.num_classes, sigma, hp)
        metrics = {"batch_size": jnp.asarray(labels.shape[0], jnp.float32), "teacher_accuracy": accuracy}
        params = {"mixture": mixture._asdict(), "teacher": teacher}
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
