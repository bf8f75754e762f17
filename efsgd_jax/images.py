"""Writing synthetic images to disk: a PNG grid, an npz file with Keras' keys, or class folders of PNG files."""

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
    """A grid of images with one row per class, uint8 ``[H, W, C]``.

    A class has up to ``columns`` images, with a gap of one pixel between images. If there are more classes than
    ``columns``, several classes can share a row, so that the grid is approximately square.

    Args:
      images: uint8 ``[n, S, S, C]``.
      labels: int ``[n]``.
      num_classes: number of classes.
      columns: number of images of each class.
    """
    groups = max(1, round(math.sqrt(num_classes / columns))) if num_classes > columns else 1
    size, channels = images.shape[1], images.shape[3]
    rows = math.ceil(num_classes / groups)
    grid = np.full((rows * (size + 1) - 1, groups * columns * (size + 1) - 1, channels), 128, np.uint8)
    for c in range(num_classes):
        row, first = (c % rows) * (size + 1), (c // rows) * columns
        for k, image in enumerate(images[labels == c][:columns]):
            left = (first + k) * (size + 1)
            grid[row : row + size, left : left + size] = image
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


def save_npz(path: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes an npz file: ``x_train`` uint8 ``[n, S, S, C]`` (``[n, S, S]`` if grey), ``y_train``, ``class_names``."""
    pixels = images[..., 0] if images.shape[-1] == 1 else images
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, x_train=pixels, y_train=labels, class_names=np.array(class_names))


def save_class_folders(directory: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes ``directory/CLASS/000000.png`` and so on, a layout that the data source ``folder`` can read."""
    for label, name in enumerate(folder_names(class_names)):
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(labels == label):
            to_pillow(images[index]).save(folder / f"{index:06d}.png")


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Folder names that all file systems accept, distinct and in the order of the classes, such as "T-shirt_top"."""
    names = [re.sub(r"[^\w. -]", "_", name).strip(" .")[:80] for name in class_names]
    if len({n.lower() for n in names}) < len(names) or not all(names):
        width = len(str(len(names) - 1))
        names = [f"{i:0{width}d}_{n}" for i, n in enumerate(names)]
    return names
