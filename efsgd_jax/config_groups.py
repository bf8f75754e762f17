"""The keys of the configuration that every method has."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class DataKeys:
    """``config.data``: which images.

    Attributes:
      name: digits, mnist, fashion_mnist, npz, idx, folder, celeba or tfds:NAME.
      path: file or directory; not needed for digits, mnist and fashion_mnist.
      image_size: crop and resize to this side; 0 keeps the source's own.
      channels: 1 (grey) or 3; 0 for 3 of image files (folder, celeba) and for what arrays have of the others.
      attribute: the label of celeba and tfds.
      classes: all classes, also one without an image: their number, or their names with commas between them. Empty for
        those that the source names: its folders, an array class_names.
      value_range: the values that become black and white, such as 0..16 or -1..1. Empty for 0..255 of integers and 0..1
        of floats.
      test_fraction: each image's chance to be held out where the source has no test part.
    """

    name: str = "digits"
    path: str = ""
    image_size: int = 0
    channels: int = 0
    attribute: str = ""
    classes: str = ""
    value_range: str = ""
    test_fraction: float = 0.2


@dataclasses.dataclass(frozen=True)
class PrivacyKeys:
    """``config.privacy``: what may be spent, and on what.

    Attributes:
      epsilon: never exceeded; inf trains without noise and without any guarantee.
      delta: of the same guarantee; below 1/N.
      noise_multiplier: 0 solves for the smallest that lasts for all steps.
      feedback: none; local (a residual per example, at no cost); private (a noised residual, at no cost); hidden (as
        published, and expensive: its assumption-free epsilon is what counts).
      feedback_l2_norm_clip: hidden: of the residual, on the scale of the sum; local: bound of one unit's residual;
        private: the outer clip norm. 0 with none.
      feedback_decay: local: of a residual when it is written; private: of the filter. -1 for the mode's default.
      feedback_share: private: the residual channel's share of the budget. 0 for the mode's default.
    """

    epsilon: float = 10.0
    delta: float = 1e-5
    noise_multiplier: float = 0.0
    feedback: str = "none"
    feedback_l2_norm_clip: float = 0.0
    feedback_decay: float = -1.0
    feedback_share: float = 0.0


@dataclasses.dataclass(frozen=True)
class TrainKeys:
    """``config.train``: what is written on the way.

    Attributes:
      log_every: steps between two lines of metrics.
      grid_every: steps between two checkpoints, each with a grid of samples.
      seed: -1 for keys from the system's entropy. Anything else is for debugging: no guarantee.
    """

    log_every: int = 20
    grid_every: int = 200
    seed: int = -1


GROUPS: dict[str, Any] = {"data": DataKeys(), "privacy": PrivacyKeys(), "train": TrainKeys()}
