"""The configuration of ``born_machine``: the chain, and its training by DP-SGD."""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least, fractions, poisson_mechanism


@dataclasses.dataclass(frozen=True)
class PrivacyKeys:
    """The keys that this method adds to ``config.privacy``.

    Attributes:
      l2_norm_clip: clip norm of an example's gradient, for the negative log-likelihood of all its pixels in nats.
    """

    l2_norm_clip: float = 5.0


@dataclasses.dataclass(frozen=True)
class TrainKeys:
    """The keys that this method adds to ``config.train``.

    Attributes:
      steps: number of private steps; training stops earlier if epsilon is spent.
      expected_batch_size: expected number of real images in a batch. Each of the N training images is in a batch with
        probability expected_batch_size / N (Poisson sampling).
    """

    steps: int = 600
    expected_batch_size: int = 128


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The chain and its training.

    Attributes:
      levels: number of levels of a pixel, between black and white; the thresholds between them are public.
      bond: side of the matrices.
      chains: class: a chain for each class. label: one for all, in which only a matrix in the middle differs; it has
        fewer numbers, and tells classes apart less well.
      learning_rate: Adam's first learning rate; it decays to a twentieth along a cosine.
      ema_decay: decay of the moving average of the matrices that is released.
      microbatch_size: number of examples whose gradients are computed together; None for the whole batch.
    """

    levels: int = 2
    bond: int = 8
    chains: str = "class"
    learning_rate: float = 1e-2
    ema_decay: float = 0.95
    microbatch_size: int | None = 64


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"privacy": PrivacyKeys(), "train": TrainKeys(), "method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    m, clip = config.method, config.privacy.l2_norm_clip
    return [
        ("privacy.l2_norm_clip", clip, 0 < clip < math.inf, "above 0"),
        *at_least(config, "train", ["steps", "expected_batch_size"], 1),
        *at_least(config, "method", ["bond"], 1),
        *at_least(config, "method", ["learning_rate"], 0),
        ("method.levels", m.levels, 2 <= m.levels <= 16, "from 2 to 16"),
        ("method.chains", m.chains, m.chains in ("label", "class"), "label or class"),
        *fractions(config, "method", ["ema_decay"]),
        ("method.microbatch_size", m.microbatch_size, (m.microbatch_size or 1) >= 1, "at least 1"),
    ]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """One phase of DP-SGD.

    Raises:
      UserError: the expected batch size is larger than the number of training images.
    """
    mechanism = poisson_mechanism(config, dataset_size, config.privacy.l2_norm_clip)
    return [PlannedPhase("training", mechanism, config.train.steps)]
