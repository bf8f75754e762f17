"""Reads the labelled images that are to be protected."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from efsgd_jax.data import Dataset, load_dataset
from efsgd_jax.data.guess_source import guess_source
from efsgd_jax.errors import UserError

# Fewest images of each class: with fewer, the networks of the attack reports learn nothing, whatever was protected.
FEWEST = 20


class Labelled(NamedTuple):
    """Images uint8 ``[N, S, S, C]`` and their labels int ``[N]``."""

    images: np.ndarray
    labels: np.ndarray

    def rows(self, index: np.ndarray) -> "Labelled":
        return Labelled(self.images[index], self.labels[index])

    def and_then(self, other: "Labelled") -> "Labelled":
        return Labelled(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


class Chosen(NamedTuple):
    """The images that are to be protected: some or all of the training images, and some of the test images."""

    train: Labelled
    test: Labelled


def read_images(path: str | Path, options: Mapping[str, Any] | None = None) -> Dataset:
    """Reads images as a training run would.

    Args:
      path: a directory, .zip, .npz or .parquet file.
      options: arguments of ``load_dataset``, and ``name`` for a source other than the one that the path looks like.

    Raises:
      UserError: the images cannot be read, there is one class only, or a class has fewer than ``FEWEST`` images.
    """
    asked = {key: value for key, value in dict(options or {}).items() if value or key == "test_fraction"}
    data = load_dataset(asked.pop("name", None) or guess_source(path), path=path, **asked)
    if len(data.class_names) < 2:
        raise UserError(f"{path} has one class; labels are needed, such as by a folder for each class")
    counts = np.bincount(data.train_labels, minlength=len(data.class_names))
    fewest = int(counts.argmin())
    if counts[fewest] < FEWEST:
        raise UserError(
            f"{path}: class {data.class_names[fewest]!r} has {counts[fewest]} training images; at least {FEWEST} of "
            "each class are needed, so that what breaks the protection can be measured"
        )
    return data


def images_to_protect(data: Dataset, n: int, seed: int | None = None) -> Chosen:
    """``n`` images that the seed chooses, None for a fresh one; all if ``n`` is 0 or there are fewer.

    Test images are chosen only after all others. They keep the order of the data. A folder is read one class after the
    other, so that its first images are of few. A folder without a test split has test images, too: those that are held
    out for the attacks.

    Raises:
      UserError: ``n`` is negative, or so small that a class is left with fewer than ``FEWEST`` images.
    """
    if n < 0:
        raise UserError(f"the number of images is {n}; it is at least 1, or 0 for all")
    rng, count = np.random.default_rng(seed), len(data.train_labels)
    rows = np.sort(rng.permutation(count)[: n or None])
    more = np.sort(rng.permutation(len(data.test_labels))[: max(n - count, 0) if n else None])
    labels = np.asarray(data.train_labels[rows])
    counts = np.bincount(labels, minlength=len(data.class_names))
    if counts.min() < FEWEST:
        raise UserError(
            f"of {len(labels)} images that were chosen, class {data.class_names[int(counts.argmin())]!r} has "
            f"{counts.min()}; at least {FEWEST} of each class are needed: name a larger number"
        )
    return Chosen(
        Labelled(np.asarray(data.train_images[rows]), labels),
        Labelled(np.asarray(data.test_images[more]), np.asarray(data.test_labels[more])),
    )
