"""Warnings where generated images differ so much from real ones that something went wrong."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from efsgd_jax.data import Dataset
from efsgd_jax.evaluation.metrics import Scores
from efsgd_jax.training.brightness import brightness, brightness_warning

# A recall below this is low, unless there are so few images that it is low for every generator, and other measures of
# their distribution mean little.
LOW_RECALL, FEW_IMAGES = 0.05, 500
# A class is not recognised if a classifier trained on real images assigns less than this part of its images to it.
RECOGNISED = 0.2


def not_recognised(per_class: Mapping[str, float | None]) -> list[str]:
    """The classes whose generated images a classifier of real ones hardly ever assigns to them.

    Args:
      per_class: class -> the share of its generated images that the classifier assigns to it; None if it has none.

    Examples:
      >>> not_recognised({"cat": 0.1, "dog": 0.9})
      ['cat']
    """
    return [name for name, share in per_class.items() if share is not None and share < RECOGNISED]


def taken_for_others(classes: Sequence[str]) -> str:
    """What a classifier of real images does with generated ones of classes that it does not recognise, as a predicate.

    Examples:
      >>> taken_for_others(["cat"])
      'takes more than 80% of the generated images of cat for another class'
    """
    return (
        f"takes more than {100 * (1 - RECOGNISED):g}% of the generated images of {', '.join(classes)} for another class"
    )


def gross_differences(scores: Scores, data: Dataset, images: np.ndarray, labels: np.ndarray) -> list[str]:
    """Sentences on what is grossly wrong with generated images: their brightness, variety, or classes.

    Args:
      scores: the scores of the images.
      data: the real data set.
      images: generated images, uint8 ``[n, S, S, C]``.
      labels: their classes, int ``[n]``.

    Formal guarantees:
      None: the sentences depend on real images, as the scores do, and are written where the scores are.
    """
    found = [brightness_warning(brightness(data.train_images, data.train_labels), brightness(images, labels))]
    compared = scores.fidelity.get("classifier", {}).get("num_images", math.inf)
    if compared < FEW_IMAGES:
        found.append(
            f"FID, KID, precision and recall are of only {compared:.0f} images, which is far too few: they depend on "
            "the number, and mean little below some thousand images."
        )
    recall = scores.fidelity.get("classifier", {}).get("recall", math.inf)
    if recall < LOW_RECALL and scores.num_images >= FEW_IMAGES:
        found.append(
            f"Generated images have little variety: recall is {recall:.3f}, the share of real images that lie within "
            "the neighbourhoods of generated ones."
        )
    for classifier, utility in scores.real2gen.items():
        lost = not_recognised(dict(zip(scores.class_names, utility.per_class, strict=True)))
        if lost:
            found.append(f"A classifier ({classifier}) that was trained on real images {taken_for_others(lost)}.")
    return [f"WARNING: {sentence}" for sentence in found if sentence]
