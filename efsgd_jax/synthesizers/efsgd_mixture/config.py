"""The configuration of ``efsgd_mixture``: the releases of the mixture, then DP-SGD on Poisson-sampled batches."""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy.plan import Budget, PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least, fractions, poisson_mechanism
from efsgd_jax.synthesizers.efsgd_mixture.options import Hyperparameters
from efsgd_jax.synthesizers.gaussian_mixture.config import plan_of as plan_of_mixture
from efsgd_jax.synthesizers.gaussian_mixture.config import rules as mixture_rules
from efsgd_jax.synthesizers.gaussian_mixture.config import without_alignment


@dataclasses.dataclass(frozen=True)
class PrivacyKeys:
    """The keys that this method adds to ``config.privacy``.

    Attributes:
      l2_norm_clip: clip norm of an example's gradient.
    """

    l2_norm_clip: float = 0.3


@dataclasses.dataclass(frozen=True)
class TrainKeys:
    """The keys that this method adds to ``config.train``.

    Attributes:
      steps: number of private steps of the decoder; training stops earlier if epsilon is spent.
      expected_batch_size: expected number of real images in a batch. Each of the N training images is in a batch with
        probability expected_batch_size / N (Poisson sampling).
    """

    steps: int = 300
    expected_batch_size: int = 256


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"privacy": PrivacyKeys(), "train": TrainKeys(), "method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    return [*training_rules(config), *at_least(config, "method", ["edge_weight"], 0)]


def training_rules(config: ConfigDict) -> list[Rule]:
    """The rules for the keys of the mixture, and of ``TrainingOptions``."""
    m, clip = config.method, config.privacy.l2_norm_clip
    # Error feedback is the decoder's; of the mixture's rules all others hold.
    inherited = [r for r in mixture_rules(config) if r[0] != "privacy.feedback"]
    return [
        *inherited,
        # The network starts from blurred images as they are turned, and vectors do not say how.
        *without_alignment(config),
        ("privacy.l2_norm_clip", clip, 0 < clip < math.inf, "above 0"),
        *at_least(config, "train", ["steps", "expected_batch_size"], 1),
        *at_least(config, "method", ["width", "blocks"], 1),
        *at_least(config, "method", ["learning_rate"], 0),
        *fractions(config, "method", ["adam_b1", "ema_decay"]),
        ("method.microbatch_size", m.microbatch_size, (m.microbatch_size or 1) >= 1, "at least 1"),
    ]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """The phases of the mixture, which spend ``mixture_share`` of epsilon, and the training of the decoder.

    Raises:
      UserError: the expected batch size is larger than the number of training images.
    """
    return plan_of(config, Hyperparameters(**{k: v for k, v in config.method.items() if k != "name"}), dataset_size)


def plan_of(config: ConfigDict, hyperparameters: Any, dataset_size: int) -> list[PlannedPhase]:
    """``plan`` for hyperparameters that are those of a mixture and ``TrainingOptions``."""
    share = hyperparameters.mixture_share
    mixture = plan_of_mixture(config, hyperparameters, dataset_size, Budget("mixture", share))
    training = poisson_mechanism(config, dataset_size, config.privacy.l2_norm_clip)
    return [
        *mixture,
        PlannedPhase("training", training, config.train.steps, Budget("training", 1 - share)),
    ]
