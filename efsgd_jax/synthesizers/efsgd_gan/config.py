"""The configuration of ``efsgd_gan``: DP-SGD with per-example clipping on Poisson-sampled batches."""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least, fractions, poisson_mechanism
from efsgd_jax.synthesizers.efsgd_gan.options import Hyperparameters


@dataclasses.dataclass(frozen=True)
class PrivacyKeys:
    """The keys that this method adds to ``config.privacy``.

    Attributes:
      l2_norm_clip: clip norm of each network's part of an example's gradient. The ratios of these norms matter more
        than their scale, since the noise is proportional to the joint sensitivity and Adam normalises the updates.
    """

    l2_norm_clip: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"discriminator": 0.7, "encoder": 0.5, "generator": 1.0}
    )


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


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"privacy": PrivacyKeys(), "train": TrainKeys(), "method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    m, clips = config.method, config.privacy.l2_norm_clip
    counts = ["latent", "generator_width", "discriminator_width", "encoder_width", "max_width", "features"]
    counts += ["private_steps_per_generator_step", "generated_batch_size", "augmentation_multiplicity"]
    size = m.microbatch_size
    return [
        *((f"privacy.l2_norm_clip.{k}", c, 0 < c < math.inf, "above 0") for k, c in clips.items()),
        *at_least(config, "train", ["steps", "expected_batch_size"], 1),
        *fractions(config, "method", ["ema_decay", "adam_b1"]),
        ("method.microbatch_size", size, size is None or size >= 1, "at least 1"),
        ("method.compute_dtype", m.compute_dtype, m.compute_dtype in ("float32", "bfloat16"), "float32 or bfloat16"),
        *at_least(config, "method", counts, 1),
        *at_least(config, "method", [k for k in m if k.endswith(("_weight", "learning_rate"))], 0),
    ]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """A single phase: DP-SGD with error feedback.

    Raises:
      UserError: the expected batch size is larger than the number of training images.
    """
    mechanism = poisson_mechanism(config, dataset_size, config.privacy.l2_norm_clip.to_dict())
    return [PlannedPhase("training", mechanism, config.train.steps)]
