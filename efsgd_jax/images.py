"""Pictures of synthetic images, and names of class folders."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from efsgd_jax.files import atomic


def to_pillow(image: np.ndarray) -> Image.Image:
    """Converts uint8 ``[H, W, 1 or 3]`` to a Pillow image."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def class_grid(images: np.ndarray, labels: np.ndarray, num_classes: int, *, columns: int = 10) -> np.ndarray:
    """A grid of images, class by class, uint8 ``[H, W, C]``.

    A class has up to ``columns`` images, its first ones, with a grey gap of one pixel between images. The places of a
    class with fewer images stay grey. Each class has a row or, if there are many more classes than ``columns``, a part
    of a row, so that the grid is approximately square.

    Args:
      images: uint8 ``[n, S, S, C]``.
      labels: the class of each image, int ``[n]``.
      num_classes: number of classes.
      columns: largest number of images of each class.
    """
    classes_per_row = max(1, round(math.sqrt(num_classes / columns))) if num_classes > columns else 1
    size, channels = images.shape[1], images.shape[3]
    rows = math.ceil(num_classes / classes_per_row)
    grid = np.full((rows * (size + 1) - 1, classes_per_row * columns * (size + 1) - 1, channels), 128, np.uint8)
    for c in range(num_classes):
        top, first_column = (c % rows) * (size + 1), (c // rows) * columns
        for k, image in enumerate(images[labels == c][:columns]):
            left = (first_column + k) * (size + 1)
            grid[top : top + size, left : left + size] = image
    return grid


def enlarge(grid: np.ndarray) -> Image.Image:
    """Enlarges a grid by a whole factor from 1 to 8, to a width of at most 800 pixels unless it is wider already."""
    factor = max(1, min(8, 800 // grid.shape[1]))
    image = to_pillow(grid)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def save_grid(path: Path, grid: np.ndarray) -> None:
    """Writes the enlarged grid as a PNG file."""
    with atomic(path) as temporary:
        enlarge(grid).save(temporary, format="PNG")


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A folder name for each class that common file systems accept, such as "T-shirt_top" for "T-shirt/top".

    The sorted order of the folders is that of the classes, so that a reader that numbers sorted folders gives each
    image the label that it has. To this end numbers are padded with zeros, and other names are preceded by the number
    of their class, if their own order is another one. So they are, too, if two names would be equal, apart from upper
    and lower case, or one would be empty.

    Examples:
      >>> folder_names(["T-shirt/top", "Bag"]), folder_names(["cat", "dog"])
      (['0_T-shirt_top', '1_Bag'], ['cat', 'dog'])
      >>> folder_names([str(i) for i in range(12)])[8:]
      ['08', '09', '10', '11']
    """
    width = len(str(len(class_names) - 1))
    names = [re.sub(r"[^\w. -]", "_", name).strip(" .")[:80] for name in class_names]
    if names == [str(i) for i in range(len(names))]:
        return [name.zfill(width) for name in names]
    if len({n.lower() for n in names}) < len(names) or not all(names) or names != sorted(names):
        names = [f"{i:0{width}d}_{n}" for i, n in enumerate(names)]
    return names
