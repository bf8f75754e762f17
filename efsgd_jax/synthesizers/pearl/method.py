"""A generator matched to a noisy characteristic function (PEARL, arXiv 2106.04590; with equal weights DP-MERF).

    frequencies   noisy sums S_y = sum_i z(x_i) over the images of each class, and counts n_y     -> f_y = S_y / n_y
    matching      post-processing: min_G max_s sum_y sum_k a_k(s) |f_y(w_k) - E f(w_k; G(., y))|^2

With W of public random frequencies, ``z(x) = (cos W x, sin W x) / sqrt(m)`` has norm 1 for every image. The paper also
releases "auxiliary information", from which it sets the bandwidth of W, and its code has no such release; here the
bandwidth is a public number, and the numbers of images of the classes come from the same release.

The generator turns noise into images, or corrects the images of a private mixture that was released before.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import PlannedPhase, VectorSum
from efsgd_jax.privacy.access import Access
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.synthesizers import gaussian_mixture
from efsgd_jax.synthesizers.base import Generate, Phase, Record, Released
from efsgd_jax.synthesizers.pearl.config import Hyperparameters
from efsgd_jax.synthesizers.pearl.frequencies import distance, frequencies, waves, weights_of
from efsgd_jax.synthesizers.pearl.start import start_of

# Weight of a record's count in the release, relative to the norm of its features.
COUNT_WEIGHT = 0.25
CRITIC_RATE = 0.05
EMA_DECAY = 0.99


class Row(NamedTuple):
    """The view of a record: its features ``[2 m]``, and its label."""

    waves: jax.Array
    label: jax.Array


class State(NamedTuple):
    """The state of the matching: step, parameters, their average, the critic ``[D]``, Adam's state; what earlier phases
    released, and the frequencies."""

    step: jax.Array
    params: Any
    ema: Any
    critic: jax.Array
    optimizer: optax.OptState
    released: Any


def phases(
    spec: ImageSpec, hyperparameters: Hyperparameters, plan: Sequence[PlannedPhase], mesh: Mesh | None = None
) -> list[Phase]:
    """The phases, bound to the shape of a data set.

    Formal guarantees:
      The features of an image are a function of the image and of public numbers. The phase ``frequencies`` is one
      release of a sum of clipped vectors; matching reads released values only.
    """
    hp, start = hyperparameters, start_of(spec, hyperparameters)
    *before, first, last = plan
    pixels, classes = spec.image_size**2 * spec.channels, spec.num_classes
    optimizer = optax.adam(optax.cosine_decay_schedule(hp.generator_learning_rate, last.steps, alpha=0.05), b1=0.5)
    # Several images of each class; of many classes a random part in each step.
    each = max(2, hp.images_per_step // classes)
    at_once = max(1, min(classes, hp.images_per_step // each))

    def w() -> jax.Array:
        return frequencies(pixels, hp.frequencies, hp.bandwidth)

    def view(record: Record, released: Released) -> Row:
        return Row(waves(record.image[None].astype(jnp.float32) / 255, w())[0], record.label)

    def release(state: jax.Array, access: SumAccess, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        term = VectorSum(lambda r: r.waves, 1.0, COUNT_WEIGHT)
        ((sums, counts),), std = access.release([term], group=lambda r: r.label, num_groups=classes)
        fewest = 3 * std / COUNT_WEIGHT + 1  # a class with hardly any record counts as one with few
        return sums / jnp.maximum(counts, fewest)[:, None], {}

    def init(key: jax.Array, released: Released) -> State:
        params = start.init(key)
        return State(
            jnp.zeros((), jnp.int32),
            params,
            jax.tree.map(jnp.copy, params),
            jnp.zeros(pixels),
            optimizer.init(params),
            # The frequencies are kept, because drawing them takes as long as a good part of a step.
            {"target": released["frequencies"], "w": w(), **jax.tree.map(jnp.asarray, start.needs(released))},
        )

    def match(state: State, access: Access, key: jax.Array) -> tuple[State, dict[str, jax.Array]]:
        choice_key, image_key = jax.random.split(key)
        chosen = jax.random.permutation(choice_key, classes)[:at_once]
        target, matrix = state.released["target"][chosen], state.released["w"]

        def loss(params: Any, critic: jax.Array) -> jax.Array:
            images = start.images(params, image_key, jnp.repeat(chosen, each), state.released)
            features = waves(images, matrix).reshape(at_once, each, -1)
            return distance(features, target, weights_of(critic, matrix)) / at_once

        value, (gradient, ascent) = jax.value_and_grad(loss, (0, 1))(state.params, state.critic)
        updates, adam = optimizer.update(gradient, state.optimizer)
        params = optax.apply_updates(state.params, updates)
        turn = hp.critic_every > 0 and state.step % max(hp.critic_every, 1) == 0
        length = jnp.maximum(jnp.linalg.norm(ascent), 1e-12)
        critic = jnp.where(turn, state.critic + CRITIC_RATE * pixels**0.5 * ascent / length, state.critic)
        decay = jnp.minimum(EMA_DECAY, (1.0 + state.step) / (10.0 + state.step))
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        return State(state.step + 1, params, ema, critic, adam, state.released), {"difference": value}

    return [
        *(gaussian_mixture.METHOD.phases(spec, hp, before, mesh) if before else []),
        Phase(first, lambda key, released: jnp.zeros((classes, 2 * hp.frequencies)), release, lambda s: s, view=view),
        Phase(
            last,
            init,
            match,
            release=lambda state: start.published(state.ema, state.released),
            parameters=lambda state: state.params,
            shown=("difference",),
        ),
    ]


def released_like(spec: ImageSpec, hp: Hyperparameters) -> Any:
    """Shapes and dtypes of what is published: the generator and, if it starts there, the mixture."""
    return start_of(spec, hp).released_like()


def make_generate(spec: ImageSpec, hp: Hyperparameters) -> Generate:
    """Returns ``generate(params, key, labels) -> images``: see ``Method.make_generate``."""
    return start_of(spec, hp).make_generate()
