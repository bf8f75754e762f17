"""The configuration of ``p3gm``: that of ``efsgd_mixture``, and of the posterior."""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least
from efsgd_jax.synthesizers.efsgd_mixture.config import PrivacyKeys, TrainKeys, plan_of
from efsgd_jax.synthesizers.efsgd_mixture.config import rules as rules_of_decoder
from efsgd_jax.synthesizers.efsgd_mixture.options import Hyperparameters as DecoderHyperparameters


@dataclasses.dataclass(frozen=True)
class Hyperparameters(DecoderHyperparameters):
    """The hyperparameters of the mixture, of the decoder and its training (all inherited), and:

    Attributes:
      prior_weight: weight of the divergence between the posterior and the mixture, relative to the squared error.
      posterior_width: units of the network's hidden layer that gives the posterior's variances.
    """

    prior_weight: float = 0.05
    posterior_width: int = 32


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"privacy": PrivacyKeys(), "train": TrainKeys(), "method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    m = config.method
    return [
        *rules_of_decoder(config),
        ("method.prior_weight", m.prior_weight, 0 <= m.prior_weight < math.inf, "at least 0"),
        *at_least(config, "method", ["posterior_width"], 1),
    ]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """The phases of the mixture, which spend ``mixture_share`` of epsilon, and the training of both networks."""
    return plan_of(config, Hyperparameters(**{k: v for k, v in config.method.items() if k != "name"}), dataset_size)
