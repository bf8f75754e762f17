"""The configuration of ``distilled_set``: two full-batch releases and a number of matching steps."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.privacy import Budget, FullBatchMechanism, PlannedPhase
from efsgd_jax.synthesizers.config_rules import Rule, at_least

WHOLE = Budget()


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The size of the set, the random networks, and how the set is matched and drawn from.

    Attributes:
      images_per_class: number of images of each class that are made and published.
      tiles_per_side: with 2, each published image is four tiles, each of which is drawn as an image of twice its size
        (multi-formation, arXiv 2205.14959). 1 for images that are drawn as they are.
      networks: number J of random networks.
      networks_per_step: number of them, chosen at random, whose features a matching step compares; 0 for all.
      width: number of channels of their convolutions.
      signal_clip: largest norm of the difference between one network's features of an image and their mean over all
        images, relative to the largest norm of the features. All networks together are clipped to sqrt(J) times as
        much.
      centre_share: share of the budget 1/sigma^2 that is spent on the mean of the features over all images.
      matching_steps: number of steps of Adam that match the published images' features; they cost no budget.
      matching_learning_rate: learning rate of these steps, for pixels from 0 to 1; it decays to a tenth.
      smoothness: weight of the squared differences between neighbouring pixels in the matching.
      augmentation: how much a published image is changed when it is drawn: with 1, turned by up to 15 degrees, scaled
        by up to 15% and shifted by up to a twelfth of its side. 0 draws the published images themselves.
    """

    images_per_class: int = 10
    tiles_per_side: int = 1
    networks: int = 16
    networks_per_step: int = 0
    width: int = 32
    signal_clip: float = 0.6
    centre_share: float = 0.1
    matching_steps: int = 400
    matching_learning_rate: float = 0.03
    smoothness: float = 0.0
    augmentation: float = 0.0


def defaults() -> dict[str, Any]:
    """The keys that this method adds to the configuration, by group."""
    return {"method": Hyperparameters()}


def rules(config: ConfigDict) -> list[Rule]:
    """The rules that the values of the method's keys must satisfy."""
    p, m = config.privacy, config.method
    positive = ["signal_clip", "matching_learning_rate"]
    return [
        ("privacy.feedback", p.feedback, p.feedback == "none", "none: nothing is left over from one release"),
        *at_least(config, "method", ["images_per_class", "tiles_per_side", "networks", "width", "matching_steps"], 1),
        ("method.networks_per_step", m.networks_per_step, m.networks_per_step <= m.networks, "at most method.networks"),
        *at_least(config, "method", ["smoothness", "augmentation", "networks_per_step"], 0),
        *((f"method.{k}", m[k], 0 < m[k] < float("inf"), "above 0") for k in positive),
        ("method.centre_share", m.centre_share, 0 < m.centre_share < 1, "above 0 and below 1"),
    ]


def plan(config: ConfigDict, dataset_size: int) -> list[PlannedPhase]:
    """The phases: the two releases divide the budget 1/sigma^2, and matching is post-processing."""
    noise, share = config.privacy.noise_multiplier, config.method.centre_share
    return [
        PlannedPhase("centre", FullBatchMechanism(dataset_size, noise, share), 1, WHOLE),
        PlannedPhase("signals", FullBatchMechanism(dataset_size, noise, 1 - share), 1, WHOLE),
        PlannedPhase("matching", None, config.method.matching_steps),
    ]
