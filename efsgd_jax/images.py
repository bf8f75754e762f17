"""Synthetic images on disk: a PNG grid, an npz with Keras' keys, class folders of PNGs."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from efsgd_jax.files import atomic


def to_pillow(image: np.ndarray) -> Image.Image:
    """uint8 ``[H, W, 1 or 3]`` -> a Pillow image."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def class_grid(images: np.ndarray, labels: np.ndarray, num_classes: int, *, columns: int = 10) -> np.ndarray:
    """One row per class, ``columns`` images each, one pixel between them; uint8 ``[H, W, C]``.

    With many classes, several of them share a row, so that the grid stays near a square.
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
    """Each pixel by a whole factor, to about 800 pixels of width."""
    factor = max(1, min(8, 800 // grid.shape[1]))
    image = to_pillow(grid)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def save_grid(path: Path, grid: np.ndarray) -> None:
    """The enlarged grid as PNG."""
    with atomic(path) as temporary:
        enlarge(grid).save(temporary, format="PNG")


def save_npz(path: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """``x_train`` uint8 ``[n, S, S, C]`` (``[n, S, S]`` if gray, as Keras has it), ``y_train``, ``class_names``."""
    pixels = images[..., 0] if images.shape[-1] == 1 else images
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, x_train=pixels, y_train=labels, class_names=np.array(class_names))


def save_class_folders(directory: Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """``directory/CLASS/000000.png`` and so on, a layout that the ``folder`` source reads back."""
    for label, name in enumerate(folder_names(class_names)):
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(labels == label):
            to_pillow(images[index]).save(folder / f"{index:06d}.png")


def folder_names(class_names: Sequence[str]) -> list[str]:
    """Names that every file system takes, still distinct and in the classes' order: "T-shirt/top" -> "T-shirt_top"."""
    names = [re.sub(r"[^\w. -]", "_", name).strip(" .")[:80] for name in class_names]
    if len({n.lower() for n in names}) < len(names) or not all(names):
        width = len(str(len(names) - 1))
        names = [f"{i:0{width}d}_{n}" for i, n in enumerate(names)]
    return names
