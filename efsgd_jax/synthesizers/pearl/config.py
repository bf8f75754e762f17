"""The configuration of ``pearl``: one release, before it those of a mixture if there is one, and matching."""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy import Budget, FullBatchMechanism, PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least, fractions
from efsgd_jax.synthesizers.gaussian_mixture.config import plan_of as plan_of_mixture
from efsgd_jax.synthesizers.gaussian_mixture.config import rules as mixture_rules
from efsgd_jax.synthesizers.gaussian_mixture.config import without_alignment
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters as MixtureHyperparameters

STARTS = ("noise", "mixture")


@dataclasses.dataclass(frozen=True)
class MatchingOptions:
    """The frequencies, the generator, and how it is matched.

    Attributes:
      start: noise: a generator that turns noise into images (PEARL). mixture: the private Gaussian mixture, which
        spends ``mixture_share`` of epsilon first, and a network that corrects its images.
      mixture_share: part of epsilon that the mixture spends, with ``start="mixture"``.
      frequencies: number m of random frequencies; each has a cosine and a sine.
      bandwidth: s_0: frequencies are normal with variance 1/s_0, for pixels from 0 to 1. 0 for 0.165 times the number
        of pixels, which is 129 for 28x28 grey pixels.
      matching_steps: number of steps that train the generator; they cost no budget.
      images_per_step: number of images that are generated in a step.
      critic_every: each so many steps, the weights of the frequencies are changed to where generated images differ
        most. 0 for equal weights (DP-MERF).
      generator_learning_rate: Adam's first learning rate; it decays to a twentieth along a cosine.
      latent: number of the noise values that become an image.
      width: channels of the finest stage of the generator, or of the network that corrects the mixture's images.
      blocks: number of residual blocks of that network.
      noise_injection: whether the networks add noise at each stage.
    """

    start: str = "noise"
    mixture_share: float = 0.5
    frequencies: int = 1500
    bandwidth: float = 0.0
    matching_steps: int = 3000
    images_per_step: int = 200
    critic_every: int = 5
    generator_learning_rate: float = 3e-3
    latent: int = 10
    width: int = 16
    blocks: int = 2
    noise_injection: bool = False


@dataclasses.dataclass(frozen=True)
class Hyperparameters(MatchingOptions, MixtureHyperparameters):
    """The hyperparameters of matching and, for ``start="mixture"``, of the mixture."""


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    m = config.method
    counts = ["frequencies", "matching_steps", "latent", "width", "blocks"]
    return [
        *mixture_rules(config),
        *without_alignment(config),
        ("method.start", m.start, m.start in STARTS, " or ".join(STARTS)),
        *fractions(config, "method", ["mixture_share"]),
        *at_least(config, "method", counts, 1),
        *at_least(config, "method", ["images_per_step"], 2),
        *at_least(config, "method", ["critic_every"], 0),
        ("method.bandwidth", m.bandwidth, 0 <= m.bandwidth < math.inf, "at least 0"),
        ("method.generator_learning_rate", m.generator_learning_rate, 0 < m.generator_learning_rate < math.inf,
         "above 0"),
    ]  # fmt: skip


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """The phases: the mixture's, if the generator starts there, the release, and matching as post-processing."""
    m, noise = config.method, config.privacy.noise_multiplier
    hp = Hyperparameters(**{k: v for k, v in m.items() if k != "name"})
    first, rest = [], 1.0
    if m.start == "mixture":
        first, rest = plan_of_mixture(config, hp, dataset_size, Budget("mixture", m.mixture_share)), 1 - m.mixture_share
    return [
        *first,
        PlannedPhase("frequencies", FullBatchMechanism(dataset_size, noise), 1, Budget("frequencies", rest)),
        PlannedPhase("matching", None, m.matching_steps),
    ]
