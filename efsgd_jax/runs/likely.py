"""What an epsilon is likely to buy for a number of images: a rough guide from measured curves of Fashion-MNIST."""

import math

import numpy as np

# Accuracy in percent of a classifier that was trained on images of the mixture and tested on real ones, by epsilon, on
# Fashion-MNIST; scores on held-out images, of the file benchmarks/results/quality_held_out.json. inf is without noise.
ACCURACY_BY_EPSILON = {0.2: 74.6, 1.0: 81.0, 3.0: 83.5, 10.0: 86.0, math.inf: 86.9}
# Number of records and of classes of these runs.
RECORDS, CLASSES = 54_000, 10


def equivalent_epsilon(epsilon: float, records: int, classes: int) -> float:
    """The epsilon at which the noise on a class's mean is as large, for the records and classes of the measured runs.

    The noise of a mean is inversely proportional to epsilon, roughly, and to the number of records in the class.

    Examples:
      >>> equivalent_epsilon(10.0, records=5_400, classes=10)
      1.0
    """
    return epsilon * (records / classes) / (RECORDS / CLASSES)


def likely_loss(epsilon: float, records: int, classes: int) -> tuple[float, bool]:
    """Points of accuracy that the noise is likely to cost, and whether the curve was measured there.

    Between the measured epsilons the loss is interpolated linearly in the logarithm of epsilon; beyond them it is that
    of the nearest one.

    Examples:
      >>> loss, measured = likely_loss(10.0, records=54_000, classes=10)
      >>> round(loss, 1), measured
      (0.9, True)
    """
    known = sorted(e for e in ACCURACY_BY_EPSILON if e < math.inf)
    best = ACCURACY_BY_EPSILON[math.inf]
    at = equivalent_epsilon(epsilon, records, classes)
    losses = [best - ACCURACY_BY_EPSILON[e] for e in known]
    loss = float(np.interp(math.log(at), np.log(known), losses))
    return loss, known[0] <= at <= known[-1]
