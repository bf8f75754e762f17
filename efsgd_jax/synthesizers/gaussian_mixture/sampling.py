"""Samples images from a released mixture: vectors are drawn, rendered as images, and accepted by the reranker."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.synthesizers.base import Generate
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, draw
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters
from efsgd_jax.synthesizers.gaussian_mixture.rejection import accepted_images
from efsgd_jax.synthesizers.reranking import reranker_of

# Number of images that are generated in parallel.
DRAWN_AT_ONCE = 100

# render(params, keys, vectors, labels) -> images: keys [L]; vectors [L, D] in the format of ``appearance.to_vector``;
# labels int [L]; images float32 [L, S, S, C] in [0, 1].
Render = Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]


def make_sampler(render: Render, hp: Hyperparameters) -> Generate:
    """Returns ``generate(params, key, labels) -> images``; see ``Method.make_generate``.

    Args:
      render: function that turns vectors of the mixture into images.
      hp: its key ``candidates``, the largest number of candidates for an image. Each candidate is accepted with
        the probability of its class that the reranker ``params["reranker"]`` gives or, with ``acceptance=most_likely``,
        only if that class is also the most probable one; with one candidate there is no reranker.
        ``params["mixture"]`` is a ``Mixture`` as a dictionary.
    """

    reranker = reranker_of(hp)

    def generate(params: Any, key: jax.Array, labels: jax.Array) -> jax.Array:
        keys, mixture = jax.random.split(key, labels.shape[0]), Mixture(**params["mixture"])

        def propose(index: jax.Array, attempt: jax.Array) -> tuple[jax.Array, jax.Array]:
            asked = labels[index]
            attempt_keys = jax.vmap(lambda k, i: jax.random.split(jax.random.fold_in(k, i), 3))(keys[index], attempt)
            vectors = jax.vmap(lambda k, y: draw(mixture, k, y))(attempt_keys[:, 0], asked)
            images = render(params, attempt_keys[:, 1], vectors, asked)
            if hp.candidates == 1:
                return images, jnp.ones(len(index), bool)
            scores = reranker.log_probabilities(params["reranker"], reranker.features(images))
            chance = jnp.exp(jnp.take_along_axis(scores, asked[:, None], axis=1)[:, 0])
            if hp.acceptance == "most_likely":
                chance = jnp.where(jnp.argmax(scores, axis=1) == asked, chance, 0.0)
            return images, jax.vmap(jax.random.uniform)(attempt_keys[:, 2]) < chance

        # In lanes, to bound the memory: every candidate needs a matrix, the axes of its component.
        lanes = min(DRAWN_AT_ONCE, labels.shape[0])
        return 2 * accepted_images(propose, labels.shape[0], hp.candidates, lanes) - 1

    return generate
