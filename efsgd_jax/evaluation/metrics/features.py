"""Checks of the inputs of metrics that compare two sets of features."""

import numpy as np

from efsgd_jax.errors import UserError


def check_features(real: np.ndarray, fake: np.ndarray, at_least: int, metric: str) -> None:
    """Checks that two sets of features are finite and have shapes ``[N, d]`` and ``[M, d]``, N and M ``at_least``.

    Args:
      real: features of real images.
      fake: features of generated images.
      at_least: the smallest number of rows of each.
      metric: name of the metric, for messages.

    Raises:
      UserError: other shapes, too few rows, or a NaN or infinity.
    """
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise UserError(
            f"{metric}: real features of shape {real.shape} and generated ones of shape {fake.shape}; "
            "use [N, d] and [M, d], of one network"
        )
    if min(len(real), len(fake)) < at_least:
        raise UserError(
            f"{metric} of {len(real)} real and {len(fake)} generated images; use at least {at_least} of each"
        )
    for values, kind in ((real, "real"), (fake, "generated")):
        check_finite(values, f"the features of the {kind} images", metric)


def check_finite(values: np.ndarray, what: str, metric: str) -> None:
    """Checks that ``values``, ``[N, d]``, has no NaN and no infinity.

    Raises:
      UserError: there is one; the message names the first such row.
    """
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise UserError(
            f"{metric}: {what} contain {values[row, column]}, first in row {row}; "
            "look at the images and the weights that made them"
        )
