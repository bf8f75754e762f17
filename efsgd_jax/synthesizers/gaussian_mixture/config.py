"""The configuration of the Gaussian mixture: one full-batch release."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy.calibration import calibrate_mechanism
from efsgd_jax.privacy.full_batch import FullBatchMechanism
from efsgd_jax.synthesizers.config_rules import Rule, at_least, without_noise
from efsgd_jax.synthesizers.gaussian_mixture.method import Hyperparameters


@dataclasses.dataclass(frozen=True)
class TrainKeys:
    """What this method changes in ``config.train``.

    Attributes:
      steps: 1, a full-batch release of everything at once.
    """

    steps: int = 1


def defaults() -> dict[str, Any]:
    """Keys that this method adds, by group."""
    return {"train": TrainKeys(), "method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """What their values must be."""
    p, t, m = config.privacy, config.train, config.method
    positive = ["mean_clip", "deviation_clip", "contrast", "reranker_clip", "reranker_learning_rate"]
    shares = [k for k in m if k.endswith("_share")]
    return [
        ("train.steps", t.steps, t.steps == 1, "1: everything is released at once"),
        ("privacy.feedback", p.feedback, p.feedback == "none", "none: nothing is left over from one release"),
        *at_least(config, "method", ["components", "directions", "cluster_steps", "candidates", "reranker_steps"], 1),
        *((f"method.{k}", m[k], 0 < m[k] < float("inf"), "above 0") for k in positive),
        *((f"method.{k}", m[k], 0 <= m[k] < float("inf"), "at least 0") for k in ["pose_weight", "deformation"]),
        ("method.low_pass", m.low_pass, m.low_pass >= 0, "at least 0"),
        *((f"method.{k}", m[k], 0 < m[k] < 1, "above 0 and below 1") for k in shares),
    ]


def mechanism(config: ConfigDict, dataset_size: int) -> FullBatchMechanism:
    """One full-batch Gaussian release, with its noise solved for.

    Raises:
      UserError: an unreachable epsilon.
    """
    p = config.privacy
    asked = FullBatchMechanism(dataset_size, p.noise_multiplier)
    if p.noise_multiplier == 0 and not without_noise(config):
        return calibrate_mechanism(asked, config.train.steps, p.epsilon, p.delta)
    return asked
