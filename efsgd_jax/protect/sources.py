"""Reads the labelled images that are to be protected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efsgd_jax.data import Dataset, load_dataset
from efsgd_jax.data.guess_source import guess_source
from efsgd_jax.errors import UserError

# Fewest images of each class: with fewer, the networks of the attack reports learn nothing, whatever was protected.
FEWEST = 20


def read_images(path: str | Path, options: Mapping[str, Any] | None = None) -> Dataset:
    """Reads images as a training run would.

    Args:
      path: a directory, .zip, .npz or .parquet file.
      options: arguments of ``load_dataset``, and ``name`` for a source other than the one that the path looks like.

    Raises:
      UserError: the images cannot be read, there is one class only, or a class has fewer than ``FEWEST`` images.
    """
    asked = {key: value for key, value in dict(options or {}).items() if value}
    data = load_dataset(asked.pop("name", None) or guess_source(path), path=path, **asked)
    if len(data.class_names) < 2:
        raise UserError(f"{path} has one class; labels are needed, such as by a folder for each class")
    counts = np.bincount(data.train_labels, minlength=len(data.class_names))
    fewest = int(counts.argmin())
    if counts[fewest] < FEWEST:
        raise UserError(
            f"{path}: class {data.class_names[fewest]!r} has {counts[fewest]} images; at least {FEWEST} of each class "
            "are needed, so that what breaks the protection can be measured"
        )
    return data


def random_images(data: Dataset, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``n`` training images that the seed chooses, and their labels; all if ``n`` is 0 or there are fewer.

    They keep the order of the data. A folder is read one class after the other, so that its first images are of few.

    Raises:
      UserError: ``n`` is negative, or so small that a class is left with fewer than ``FEWEST`` images.
    """
    if n < 0:
        raise UserError(f"the number of images is {n}; it is at least 1, or 0 for all")
    rows = np.sort(np.random.default_rng(seed).permutation(len(data.train_labels))[: n or None])
    labels = data.train_labels[rows]
    counts = np.bincount(labels, minlength=len(data.class_names))
    if counts.min() < FEWEST:
        raise UserError(
            f"of {len(labels)} images that were chosen, class {data.class_names[int(counts.argmin())]!r} has "
            f"{counts.min()}; at least {FEWEST} of each class are needed: name a larger number"
        )
    return np.asarray(data.train_images[rows]), np.asarray(labels)
