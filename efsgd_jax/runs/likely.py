"""What an epsilon is likely to buy for a number of images: a rough guide from measured curves."""

import math
from typing import NamedTuple

import numpy as np

# What is left of the way from guessing to the best possible accuracy: from USEFUL on images are of good use, from
# SOMEWHAT on of fair use, below of poor use.
USEFUL, SOMEWHAT = 0.8, 0.5
# Recall, the share of real images that the generated ones cover: variety is good from VARIED on, limited from LIMITED
# on, and below that poor.
VARIED, LIMITED = 0.5, 0.2


def use_word(way: float) -> str:
    """The use of images by the part of the way from guessing to the best possible accuracy: good, fair or poor."""
    return "good" if way >= USEFUL else "fair" if way >= SOMEWHAT else "poor"


def variety_word(recall: float) -> str:
    """The variety of images by recall: good, limited or poor."""
    return "good" if recall >= VARIED else "limited" if recall >= LIMITED else "poor"


class Curve(NamedTuple):
    """Scores by epsilon of one config on one data set.

    Attributes:
      of: the data, in words.
      accuracy: epsilon -> accuracy in percent of a classifier that was trained on generated images and tested on real
        ones; inf is without noise.
      recall: epsilon -> recall.
      records: number of training records.
      classes: number of classes.
    """

    of: str
    accuracy: dict[float, float]
    recall: dict[float, float]
    records: int
    classes: int


# By config; scores of the files benchmarks/results/quality_held_out.json (held-out images) and persons.json (images of
# other patients).
CURVES = {
    "clothes": Curve(
        "grey pictures of clothes (Fashion-MNIST)",
        {0.2: 75.0, 1.0: 80.8, 3.0: 83.2, 10.0: 86.0, math.inf: 87.2},
        {0.2: 0.1, 1.0: 0.54, 3.0: 0.42, 10.0: 0.6, math.inf: 0.73},
        records=54_000,
        classes=10,
    ),
    "folder_cells": Curve(
        "pictures of cells in colour (malaria)",
        {1.0: 62.0, 3.0: 84.5, 10.0: 86.9, math.inf: 89.5},
        {1.0: 0.01, 3.0: 0.07, 10.0: 0.14, math.inf: 0.28},
        records=21_069,
        classes=2,
    ),
}


def equivalent_epsilon(epsilon: float, records: int, classes: int, curve: str = "clothes") -> float:
    """The epsilon at which the noise on a class's mean is as large, for the records and classes of the measured runs.

    The noise of a mean is inversely proportional to epsilon, roughly, and to the number of records in the class.

    Examples:
      >>> equivalent_epsilon(10.0, records=5_400, classes=10)
      1.0
    """
    measured = CURVES[curve]
    return epsilon * (records / classes) / (measured.records / measured.classes)


def likely_loss(epsilon: float, records: int, classes: int, curve: str = "clothes") -> tuple[float, bool]:
    """Points of accuracy that the noise is likely to cost, and whether the curve was measured there.

    Between the measured epsilons the loss is interpolated linearly in the logarithm of epsilon; beyond them it is that
    of the nearest one.

    Args:
      epsilon: the epsilon.
      records: number of training records.
      classes: number of classes.
      curve: a key of ``CURVES``.

    Examples:
      >>> loss, measured = likely_loss(10.0, records=54_000, classes=10)
      >>> round(loss, 1), measured
      (1.2, True)
    """
    accuracy = CURVES[curve].accuracy
    known = _known(curve)
    at = equivalent_epsilon(epsilon, records, classes, curve)
    losses = [accuracy[math.inf] - accuracy[e] for e in known]
    loss = float(np.interp(math.log(at), np.log(known), losses))
    return loss, known[0] <= at <= known[-1]


def _known(curve: str) -> list[float]:
    """The epsilons with noise that were measured."""
    return sorted(e for e in CURVES[curve].accuracy if e < math.inf)


def likely_variety(epsilon: float, records: int, classes: int, curve: str = "clothes") -> str:
    """The word of the report's verdict for the recall that is likely: ``good``, ``limited`` or ``poor``.

    It is interpolated as in ``likely_loss``, whose arguments it takes.

    Examples:
      >>> likely_variety(10.0, 54_000, 10), likely_variety(10.0, 21_069, 2, "folder_cells")
      ('good', 'poor')
    """
    known = _known(curve)
    at = equivalent_epsilon(epsilon, records, classes, curve)
    recall = float(np.interp(math.log(at), np.log(known), [CURVES[curve].recall[e] for e in known]))
    return variety_word(recall)


def use_left(loss: float, curve: str = "clothes") -> tuple[float, str]:
    """By how many points images without noise are above guessing on the curve's data, and the use that a loss leaves.

    The words are those of the report's verdict: ``good``, ``fair`` or ``poor``.

    Examples:
      >>> use_left(27.5, "folder_cells")
      (39.5, 'poor')
    """
    measured = CURVES[curve]
    whole = measured.accuracy[math.inf] - 100 / measured.classes
    return whole, use_word(1 - loss / whole)


def records_for_good_use(epsilon: float, classes: int, curve: str = "clothes") -> int | None:
    """About how many records the use is good with, at two digits; None where the least noise that was measured is more.

    Examples:
      >>> records_for_good_use(1.0, 2, "folder_cells")
      55000
    """
    measured, known = CURVES[curve], _known(curve)
    whole = measured.accuracy[math.inf] - 100 / measured.classes
    losses = [measured.accuracy[math.inf] - measured.accuracy[e] for e in known]
    allowed = (1 - USEFUL) * whole
    if not losses[0] >= allowed >= losses[-1]:
        return None
    at = math.exp(np.interp(-allowed, [-loss for loss in losses], np.log(known)))
    return int(float(f"{at * measured.records / measured.classes * classes / epsilon:.2g}"))


def noise_beyond(epsilon: float, records: int, classes: int, curve: str = "clothes") -> float:
    """The noise relative to the most that the curve was measured with, or, below 1, to the least; 1 in between.

    Examples:
      >>> round(noise_beyond(0.1, records=54_000, classes=10), 1), noise_beyond(1.0, records=54_000, classes=10)
      (2.0, 1.0)
    """
    known = _known(curve)
    at = equivalent_epsilon(epsilon, records, classes, curve)
    return max(known[0] / at, 1.0) * min(known[-1] / at, 1.0)
