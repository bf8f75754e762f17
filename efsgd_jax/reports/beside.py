"""Real images beside generated ones, for the owner of the data."""

import numpy as np

from efsgd_jax.data import Dataset
from efsgd_jax.reports.images import picture, strip
from efsgd_jax.reports.pictures import MAX_CLASSES, WIDTH
from efsgd_jax.reports.sections import Section

# Number of images of each kind in a class.
EACH = 10


def beside_section(
    drawn: np.ndarray, labels: np.ndarray, names: tuple[str, ...], data: Dataset | None, why_not: str
) -> Section:
    """The section with a row of generated and a row of real training images for each class.

    Args:
      drawn: generated images, uint8 ``[n, S, S, C]``.
      labels: their classes, int ``[n]``.
      names: names of the classes.
      data: the real data; None if it cannot be read.
      why_not: the reason for that.

    Formal guarantees:
      None: it shows real training images.
    """
    figures = []
    for c, name in enumerate(names[:MAX_CLASSES] if data is not None else ()):
        assert data is not None
        real = data.train_images[data.train_labels == c][:EACH]
        if len(real):
            shown = strip(np.concatenate([drawn[labels == c][:EACH], real]), EACH)
            figures.append((name, picture(shown, f"generated, then real images of class {name}", width=WIDTH)))
    values = {"figures": figures, "num_classes": len(names), "why_not": why_not}
    return Section(
        "beside", "Real and generated", "beside.html", values, "Generated above, real below", covered_by_epsilon=False
    )
