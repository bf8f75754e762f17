"""Warnings where generated images differ so much from real ones that something went wrong."""

import math

import numpy as np

from efsgd_jax.data import Dataset
from efsgd_jax.evaluation.metrics import Scores
from efsgd_jax.training.brightness import brightness, brightness_warning

# A recall below this is low, unless there are so few images that it is low for every generator, and other measures of
# their distribution mean little.
LOW_RECALL, FEW_IMAGES = 0.05, 500
# A class is not recognised if a classifier trained on real images assigns less than this part of its images to it.
RECOGNISED = 0.2


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
        lost = [c for c, part in zip(scores.class_names, utility.per_class, strict=True) if part < RECOGNISED]
        if lost:
            found.append(
                f"A classifier of real images ({classifier}) does not recognise these classes: {', '.join(lost)}."
            )
    return [f"WARNING: {sentence}" for sentence in found if sentence]
