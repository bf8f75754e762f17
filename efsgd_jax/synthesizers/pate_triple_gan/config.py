"""The configuration of ``pate_triple_gan``: releases of classifier and mixture, then the discriminators' gradients."""

import dataclasses
import math
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.errors import UserError
from efsgd_jax.privacy import Budget, FullBatchMechanism, PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least, feedback_options, fractions
from efsgd_jax.synthesizers.gaussian_mixture.config import plan_of as plan_of_mixture
from efsgd_jax.synthesizers.gaussian_mixture.config import rules as mixture_rules
from efsgd_jax.synthesizers.gaussian_mixture.config import without_alignment
from efsgd_jax.synthesizers.pate_triple_gan.options import Hyperparameters, classifier_shares
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism

DISCRIMINATORS = "discriminators"


@dataclasses.dataclass(frozen=True)
class PrivacyKeys:
    """The keys that this method adds to ``config.privacy``.

    Attributes:
      l2_norm_clip: clip norm C of the gradient of each discriminator.
      num_shards: number K of shards into which the training images are divided; each has one discriminator.
    """

    l2_norm_clip: float = 1.0
    num_shards: int = 50


@dataclasses.dataclass(frozen=True)
class TrainKeys:
    """The keys that this method adds to ``config.train``.

    Attributes:
      steps: number of steps of the generator with discriminators.
      images_per_shard: number of generated images that each discriminator scores in a step.
      trained_per_step: number of discriminators that train in a step, in a public order.
    """

    steps: int = 100
    images_per_shard: int = 4
    trained_per_step: int = 5


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"privacy": PrivacyKeys(), "train": TrainKeys(), "method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    p, t, m = config.privacy, config.train, config.method
    inherited = [r for r in mixture_rules(config) if r[0] not in ("privacy.feedback", "method.discriminator_share")]
    counts = ["feature_directions", "classifier_steps", "width", "blocks", "critic_width", "critic_steps"]
    return [
        *inherited,
        # The generator starts from blurred images as they are turned, and vectors do not say how.
        *without_alignment(config),
        ("privacy.l2_norm_clip", p.l2_norm_clip, 0 < p.l2_norm_clip < math.inf, "above 0"),
        ("privacy.feedback", p.feedback, p.feedback in ("none", "private", "hidden"), "none, private or hidden"),
        ("method.labelled", m.labelled, 0 < m.labelled <= 1, "above 0 and at most 1"),
        ("method.discriminator_share", m.discriminator_share, 0 <= m.discriminator_share < 1, "at least 0 and below 1"),
        *at_least(config, "privacy", ["num_shards"], 1),
        *at_least(config, "train", ["steps", "images_per_shard", "trained_per_step"], 1),
        (
            "train.trained_per_step",
            t.trained_per_step,
            t.trained_per_step <= p.num_shards,
            f"at most privacy.num_shards = {p.num_shards}",
        ),
        *at_least(config, "method", [*counts, "critic_batch_size"], 1),
        *at_least(
            config,
            "method",
            ["warm_steps", "learning_rate", "critic_learning_rate", "classifier_learning_rate", "gradient_penalty"],
            0,
        ),
        *fractions(config, "method", ["ema_decay"]),
    ]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """The phases of the classifier, of the mixture, and with ``discriminator_share`` the generator's training.

    Raises:
      UserError: there are more shards than training images.
    """
    hp = Hyperparameters(**{k: v for k, v in config.method.items() if k != "name"})
    p, t = config.privacy, config.train
    budget = Budget("classifier and mixture", 1 - hp.discriminator_share)
    part = hp.classifier_share
    classifier = [
        PlannedPhase(name, FullBatchMechanism(dataset_size, p.noise_multiplier, part * share, steps), steps, budget)
        for name, (share, steps) in classifier_shares(hp).items()
    ]
    before = [*classifier, *(_scaled(x, 1 - part) for x in plan_of_mixture(config, hp, dataset_size, budget))]
    if hp.discriminator_share == 0:
        return before
    if p.num_shards > dataset_size:
        raise UserError(
            f"config.privacy.num_shards is {p.num_shards}, but there are only N = {dataset_size} training images; "
            "lower it"
        )
    votes = ShardMechanism(
        dataset_size=dataset_size,
        num_shards=p.num_shards,
        schedule="parameter",
        noise_multiplier=p.noise_multiplier,
        l2_norm_clip=p.l2_norm_clip,
        images_per_step=t.images_per_shard * p.num_shards,
        judges_per_step=p.num_shards,
        trained_per_step=t.trained_per_step,
        **feedback_options(config),
    )
    return [*before, PlannedPhase(DISCRIMINATORS, votes, t.steps, Budget(DISCRIMINATORS, hp.discriminator_share))]


def _scaled(phase: PlannedPhase, factor: float) -> PlannedPhase:
    mechanism = phase.mechanism
    if not isinstance(mechanism, FullBatchMechanism):  # the phase of an autoencoder reads public images only
        return phase
    return phase._replace(mechanism=mechanism._replace(share=factor * mechanism.share))
