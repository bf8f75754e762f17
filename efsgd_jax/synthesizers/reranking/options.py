"""The hyperparameters of the re-ranking classifier, which methods inherit into ``config.method``."""

import dataclasses
from typing import Any

from efsgd_jax.synthesizers.config_rules import Rule, at_least

KINDS = ("logistic", "random_features", "whitened")
ACCEPTANCES = ("probability", "most_likely")
INPUTS = ("oriented_gradients", "pixels")


@dataclasses.dataclass(frozen=True)
class RerankerOptions:
    """How generated images are accepted by a private classifier.

    Attributes:
      candidates: largest number of candidates for each generated image; the last one is accepted in any case. With 1
        there is no reranker.
      acceptance: probability: a candidate is accepted with the reranker's probability of its class. most_likely: the
        same, but never if another class is more probable.
      reranker: logistic: a linear classifier on oriented gradients, trained by full-batch gradient descent.
        random_features: ridge regression on random features, in closed form from one release. whitened: as logistic,
        in the principal directions of the features of images that the mixture generates, partly whitened; it comes
        after the mixture.
      reranker_share: share of the budget 1/sigma^2 that the reranker spends; the other phases spend the rest.
      reranker_steps: number of steps of full-batch gradient descent of a logistic reranker.
      reranker_clip: clip norm of an example's gradient in a logistic reranker's training.
      reranker_learning_rate: learning rate of a logistic reranker's first step, for gradients divided by the clip norm;
        it decays linearly to a tenth.
      reranker_directions: number of principal directions of a whitened reranker.
      random_frequencies: number m of random frequencies; each has a cosine and a sine.
      random_scale: standard deviation of the frequencies, for inputs of norm 1.
      random_input: what random features are computed of: oriented_gradients, or pixels.
    """

    candidates: int = 8
    acceptance: str = "probability"
    reranker: str = "logistic"
    reranker_share: float = 0.1
    reranker_steps: int = 60
    reranker_clip: float = 0.6
    reranker_learning_rate: float = 6.0
    reranker_directions: int = 150
    random_frequencies: int = 250
    random_scale: float = 1.5
    random_input: str = "oriented_gradients"


def reranker_rules(config: Any) -> list[Rule]:
    """The rules that the values of these keys must satisfy, but for ``reranker_share``."""
    m = config.method
    positive = ["reranker_clip", "reranker_learning_rate", "random_scale"]
    return [
        *at_least(config, "method", ["candidates", "reranker_steps", "reranker_directions", "random_frequencies"], 1),
        *((f"method.{k}", m[k], 0 < m[k] < float("inf"), "above 0") for k in positive),
        ("method.reranker", m.reranker, m.reranker in KINDS, " or ".join(KINDS)),
        ("method.acceptance", m.acceptance, m.acceptance in ACCEPTANCES, " or ".join(ACCEPTANCES)),
        ("method.random_input", m.random_input, m.random_input in INPUTS, " or ".join(INPUTS)),
    ]


def steps_of(options: RerankerOptions) -> int:
    """The number of steps of the reranker's phase."""
    return 1 if options.reranker == "random_features" else options.reranker_steps


def follows_mixture(options: RerankerOptions) -> bool:
    """Whether there is a reranker whose phases come after those of the mixture."""
    return options.candidates > 1 and options.reranker == "whitened"
