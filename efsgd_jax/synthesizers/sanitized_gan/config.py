"""The configuration of ``sanitized_gan``: shards, schedules, and the noise on the gradients that leave a shard."""

import dataclasses
import math
from typing import Any, get_args

from ml_collections import ConfigDict

from efsgd_jax.errors import UserError
from efsgd_jax.privacy import PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least, feedback_options, fractions, without_noise
from efsgd_jax.synthesizers.sanitized_gan.mechanism import Schedule, ShardMechanism
from efsgd_jax.synthesizers.sanitized_gan.options import LATENT_PRIORS, RECONSTRUCTIONS, Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.published_accounting import calibrate_as_published


@dataclasses.dataclass(frozen=True)
class PrivacyKeys:
    """The keys that this method adds to ``config.privacy``.

    The defaults are GS-WGAN's settings for MNIST, with the schedule that its published accounting assumes.

    Attributes:
      l2_norm_clip: clip norm C of each gradient that leaves a shard.
      schedule: which shards train in each step, and the discriminators of which shards score the generated images.
        ``published``: one shard chosen at random trains and scores all of them; nothing near the published epsilon is
        proven. ``round_robin``: the same with one shard in a public order. ``independent``: a shard chosen at random
        for each image. ``parameter``: a random set of shards, and one gradient of each, with respect to the generator's
        parameters, is clipped; in the other schedules that with respect to each image is.
      num_shards: number K of shards into which the training images are divided.
      judges_per_step: number of shards whose discriminators score images in a step, with schedule=parameter only.
      trained_per_step: number of shards that train in a step, in a public order, with schedule=independent or
        parameter only.
      allow_unproven: whether to train although no epsilon near the target is proven. Such a run cannot be released.
    """

    l2_norm_clip: float = 1.0
    schedule: str = "independent"
    num_shards: int = 1000
    judges_per_step: int = 1
    trained_per_step: int = 1
    allow_unproven: bool = False


@dataclasses.dataclass(frozen=True)
class TrainKeys:
    """The keys that this method adds to ``config.train``.

    Attributes:
      steps: number of generator steps; training stops earlier if epsilon is spent.
      images_per_step: number B of generated images in a step.
    """

    steps: int = 20_000
    images_per_step: int = 32


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"privacy": PrivacyKeys(), "train": TrainKeys(), "method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    p, t, m = config.privacy, config.train, config.method
    schedules = get_args(Schedule)
    counts = [
        "latent",
        "generator_width",
        "max_width",
        "critic_width",
        "critic_steps",
        "critic_batch_size",
        "candidates",
    ]
    rebuilds = m.reconstruction_weight > 0
    halved = rebuilds and m.reconstruction_from == "codes"
    num_scoring = {"independent": t.images_per_step, "parameter": p.judges_per_step}.get(p.schedule, 1)
    weights = [k for k in m if k.endswith(("_weight", "_penalty", "learning_rate"))]
    return [
        ("privacy.l2_norm_clip", p.l2_norm_clip, 0 < p.l2_norm_clip < math.inf, "above 0"),
        ("privacy.schedule", p.schedule, p.schedule in schedules, f"one of {', '.join(schedules)}"),
        *at_least(config, "privacy", ["num_shards", "judges_per_step", "trained_per_step"], 1),
        *(
            (f"privacy.{k}", p[k], p[k] <= p.num_shards, f"at most privacy.num_shards = {p.num_shards}")
            for k in ("judges_per_step", "trained_per_step")
        ),
        *at_least(config, "train", ["steps", "images_per_step"], 1),
        (
            "train.images_per_step",
            t.images_per_step,
            p.schedule != "parameter" or t.images_per_step % p.judges_per_step == 0,
            f"a multiple of privacy.judges_per_step = {p.judges_per_step}",
        ),
        (
            "privacy.feedback",
            p.feedback,
            p.feedback != "local" or p.schedule == "round_robin",
            "none, private or hidden; local only with schedule=round_robin, whose public order its proof needs",
        ),
        ("method.latent_prior", m.latent_prior, m.latent_prior in LATENT_PRIORS, f"one of {', '.join(LATENT_PRIORS)}"),
        (
            "method.reconstruction_from",
            m.reconstruction_from,
            m.reconstruction_from in RECONSTRUCTIONS and (t.images_per_step >= 2 * num_scoring or not halved),
            "prior, or codes with at least two images for each discriminator that scores images",
        ),
        (
            "method.encoder_steps",
            m.encoder_steps,
            m.encoder_steps >= 1 or not rebuilds,
            "at least 1 with reconstruction",
        ),
        *fractions(config, "method", ["ema_decay", "adam_b1", "adam_b2"]),
        *at_least(config, "method", counts, 1),
        *at_least(config, "method", [k for k in m if k.endswith("_steps")], 0),
        *at_least(config, "method", [*weights, "classifier_from"], 0),
    ]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """A single phase of training.

    If no epsilon is proven for the configuration, ``allow_unproven`` is set and the noise multiplier is 0, the noise is
    calibrated by the published accounting.

    Raises:
      UserError: there are more shards than training images, or nothing is proven for the configuration, noise is asked
        for and ``allow_unproven`` is not set.
    """
    p, t = config.privacy, config.train
    if p.num_shards > dataset_size:
        raise UserError(
            f"config.privacy.num_shards is {p.num_shards}, but there are only N = {dataset_size} training images; "
            "lower it"
        )
    asked = ShardMechanism(
        dataset_size=dataset_size,
        num_shards=p.num_shards,
        schedule=p.schedule,
        noise_multiplier=p.noise_multiplier,
        l2_norm_clip=p.l2_norm_clip,
        images_per_step=t.images_per_step,
        judges_per_step=p.judges_per_step,
        trained_per_step=p.trained_per_step,
        real_codes=config.method.reconstruction_weight > 0 and config.method.reconstruction_from == "codes",
        **feedback_options(config),
    )
    if not asked.proven and not without_noise(config):
        if not p.allow_unproven:
            raise UserError(_unproven(asked))
        if p.noise_multiplier == 0:
            asked = calibrate_as_published(asked, t.steps, p.epsilon, p.delta)
    return [PlannedPhase("training", asked, t.steps)]


_UNPROVEN = "--config.privacy.allow_unproven=True to train for comparison, without a guarantee"


def _unproven(asked: ShardMechanism) -> str:
    if asked.schedule == "published":
        why = (
            "config.privacy.schedule is published, in which all images of a step share a shard and shards depend on "
            "earlier steps, so that its published epsilon is not proven"
        )
    else:
        why = (
            f"config.method.reconstruction_from is codes with schedule={asked.schedule}: in image space the "
            "generator's derivative at the code of a real image gives that code away; set it to prior"
        )
        return f"{why}, or --config.privacy.schedule to parameter, or {_UNPROVEN}"
    return f"{why}; set --config.privacy.schedule to independent, round_robin or parameter, or {_UNPROVEN}"
