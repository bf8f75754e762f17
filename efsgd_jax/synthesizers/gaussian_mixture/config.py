"""The configuration of ``gaussian_mixture``: full-batch releases that divide one privacy budget."""

from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy import Budget, FullBatchMechanism, PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters, budget_shares
from efsgd_jax.synthesizers.public_autoencoder import autoencoder_rules, planned_autoencoder
from efsgd_jax.synthesizers.reranking import follows_mixture, reranker_rules
from efsgd_jax.synthesizers.reranking.whitened import DIRECTIONS

WHOLE = Budget()


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    p, m = config.privacy, config.method
    from_zero = ["pose_weight", "deformation", "mean_clip", "deviation_clip"]
    shares = [k for k in m if k.endswith("_share")]
    return [
        ("privacy.feedback", p.feedback, p.feedback == "none", "none: nothing is left over from one release"),
        *at_least(config, "method", ["components", "directions", "cluster_steps"], 1),
        *reranker_rules(config),
        ("method.contrast", m.contrast, 0 < m.contrast < float("inf"), "above 0"),
        *((f"method.{k}", m[k], 0 <= m[k] < float("inf"), "at least 0") for k in from_zero),
        ("method.low_pass", m.low_pass, m.low_pass >= 0, "at least 0"),
        ("method.align_spot", m.align_spot, not (m.align_spot and m.pose_weight), "False with pose_weight"),
        (
            "method.align_lines",
            m.align_lines,
            not (m.align_lines and (m.pose_weight or m.align_spot)),
            "False with pose_weight or align_spot",
        ),
        *autoencoder_rules(config),
        *((f"method.{k}", m[k], 0 < m[k] < 1, "above 0 and below 1") for k in shares),
    ]


def without_alignment(config: ConfigDict) -> list[Rule]:
    """Rules for methods whose network sees images as they are, and which a vector of a turned image does not tell."""
    m = config.method
    return [(f"method.{k}", m[k], not m[k], "False with a network") for k in ("align_spot", "align_lines")]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """The phases of full-batch releases. Each has a share of the budget 1/sigma^2: see ``options.budget_shares``."""
    hyperparameters = Hyperparameters(**{k: v for k, v in config.method.items() if k != "name"})
    return plan_of(config, hyperparameters, dataset_size)


def plan_of(
    config: ConfigDict, hyperparameters: Hyperparameters, dataset_size: int, budget: Budget = WHOLE
) -> list[PlannedPhase]:
    """``plan`` for hyperparameters, as a part of a method with further phases: ``budget`` is that of these phases.

    With an autoencoder, a phase that reads public data only comes first.
    """
    noise = config.privacy.noise_multiplier
    releases = [
        PlannedPhase(name, FullBatchMechanism(dataset_size, noise, share, steps), steps, budget)
        for name, (share, steps) in budget_shares(hyperparameters).items()
    ]
    if follows_mixture(hyperparameters):
        releases.insert(-1, PlannedPhase(DIRECTIONS, None, 1))
    return [*planned_autoencoder(config), *releases]
