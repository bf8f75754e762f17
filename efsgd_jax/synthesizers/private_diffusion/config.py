"""The configuration of ``private_diffusion``: that of ``efsgd_mixture``, and the keys of the diffusion."""

from math import inf
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy.plan import PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least, fractions
from efsgd_jax.synthesizers.efsgd_mixture.config import PrivacyKeys, TrainKeys, plan_of, training_rules
from efsgd_jax.synthesizers.private_diffusion.edm import MAX_CHURN
from efsgd_jax.synthesizers.private_diffusion.options import Hyperparameters


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"privacy": PrivacyKeys(), "train": TrainKeys(), "method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    m = config.method
    levels = f"above method.smallest_noise, which is {m.smallest_noise:g}"
    return [
        *training_rules(config),
        *at_least(config, "method", ["levels", "draws", "sampling_steps"], 1),
        *((f"method.{k}", m[k], 0 < m[k] < inf, "above 0") for k in ("residual_std", "smallest_noise", "level_std")),
        ("method.level_shift", m.level_shift, -inf < m.level_shift < inf, "a number"),
        ("method.churn", m.churn, 0 <= m.churn <= MAX_CHURN, f"from 0 to {MAX_CHURN:.3f}"),
        *fractions(config, "method", ["label_dropout"]),
        (
            "method.guidance",
            m.guidance,
            0 <= m.guidance < inf and (m.guidance == 1 or m.label_dropout > 0),
            "at least 0, and 1 unless method.label_dropout is above 0",
        ),
        (
            "method.guidance_threshold",
            m.guidance_threshold,
            m.guidance_threshold == 0 or (0 < m.guidance_threshold < inf and m.guidance >= 1 and m.label_dropout > 0),
            "0, or above 0 with method.guidance of at least 1 and method.label_dropout above 0",
        ),
        ("method.anchor_from", m.anchor_from, 0 <= m.anchor_from < inf, "at least 0"),
        (
            "method.anchor_to",
            m.anchor_to,
            m.anchor_from < m.anchor_to < inf,
            f"above method.anchor_from, which is {m.anchor_from:g}",
        ),
        ("method.compute_dtype", m.compute_dtype, m.compute_dtype in ("float32", "bfloat16"), "float32 or bfloat16"),
        ("method.largest_noise", m.largest_noise, m.smallest_noise < m.largest_noise < inf, levels),
    ]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """The phases of the mixture, which spend ``mixture_share`` of epsilon, and the training of the denoiser.

    Raises:
      UserError: the expected batch size is larger than the number of training images.
    """
    return plan_of(config, Hyperparameters(**{k: v for k, v in config.method.items() if k != "name"}), dataset_size)
