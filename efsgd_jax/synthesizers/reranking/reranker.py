"""What samplers know of a re-ranking classifier, of whichever kind."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import PlannedPhase
from efsgd_jax.synthesizers.base import Phase
from efsgd_jax.synthesizers.reranking import logistic, oriented_gradients, random_features, whitened
from efsgd_jax.synthesizers.reranking.options import RerankerOptions


class Reranker(NamedTuple):
    """A classifier that is linear in fixed features of an image.

    Attributes:
      features: ``features(images) -> [N, F]`` for float images ``[N, S, S, C]`` in [0, 1].
      num_features: ``num_features(shape)``, the number F for images of shape ``[S, S, C]``.
      log_probabilities: ``log_probabilities(weights, features)``: log-probabilities of the classes ``[N, K]``, for
        weights ``[F, K]``.
      phase: ``phase(spec, plan)``, the phase that releases the weights; that of ``whitened`` comes after its
        ``directions_phase``.
    """

    features: Callable[[jax.Array], jax.Array]
    num_features: Callable[[tuple[int, int, int]], int]
    log_probabilities: Callable[[jax.Array, jax.Array], jax.Array]
    phase: Callable[[ImageSpec, PlannedPhase], Phase]


def reranker_of(options: RerankerOptions) -> Reranker:
    """The classifier of a configuration."""
    if options.reranker != "random_features":
        make = whitened.reranker_phase if options.reranker == "whitened" else logistic.reranker_phase
        return Reranker(
            oriented_gradients.features_of,
            oriented_gradients.num_features,
            logistic.log_probabilities,
            lambda spec, plan: make(spec, options, plan),
        )
    return Reranker(
        lambda images: random_features.features_of(images, options),
        lambda shape: 2 * options.random_frequencies,
        random_features.log_probabilities,
        lambda spec, plan: random_features.reranker_phase(spec, options, plan),
    )
