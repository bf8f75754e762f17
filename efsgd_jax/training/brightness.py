"""The mean brightness of generated images beside that of real ones, and a warning where they differ grossly."""

import warnings

import numpy as np

from efsgd_jax.data import Dataset

# Brightnesses differ grossly if one is this many times the other, and if they differ by this part of white.
RATIO, DIFFERENCE = 1.4, 0.04


def brightness(images: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes of the mean brightness of uint8 images ``[N, S, S, C]``, in parts of white."""
    means = np.mean(images, axis=(1, 2, 3))
    return float(np.mean([means[labels == k].mean() for k in np.unique(labels)])) / 255


def brightness_warning(real: float, generated: float) -> str:
    """A sentence if the mean brightness of generated images differs grossly from that of real ones; else "".

    Examples:
      >>> brightness_warning(real=0.39, generated=0.78)
      'Generated images are too bright: 78% of white on average, real ones 39%.'
    """
    low, high = sorted((generated, real))
    if high - low < DIFFERENCE or high < RATIO * low:
        return ""
    word = "bright" if generated > real else "dark"
    return f"Generated images are too {word}: {100 * generated:.0f}% of white on average, real ones {100 * real:.0f}%."


def warn_of_brightness(data: Dataset, grid: np.ndarray) -> None:
    """Warns the owner of a run when training has ended. What it says is private, as the losses are.

    Args:
      data: the data set of the run.
      grid: generated images of all classes, as ``images.class_grid`` returns them.
    """
    gaps = np.arange(data.spec.image_size, max(grid.shape[:2]), data.spec.image_size + 1)
    for axis in (0, 1):
        grid = np.delete(grid, gaps[gaps < grid.shape[axis]], axis)
    sentence = brightness_warning(brightness(data.train_images, data.train_labels), float(grid.mean()) / 255)
    if sentence:
        warnings.warn(f"{sentence} Look at the images before you use them. (This warning is private.)", stacklevel=2)
