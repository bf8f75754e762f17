"""A data set without its test split, for choices: the test split is not looked at while options are chosen."""

from pathlib import Path
from typing import Any

import numpy as np

from efsgd_jax import load_dataset

HELD_OUT = 0.1


def without_test_split(source: str, name: str, directory: Path, **options: Any) -> Path:
    """The training split alone, its last part in the place of the test split. ``options`` are those of
    ``load_dataset``."""
    data = load_dataset(name, path=source or None, **options)
    cut = round((1 - HELD_OUT) * len(data.train_labels))
    path = directory / f"{name}.npz"
    # Shuffled, because a folder's images come class by class.
    order = np.random.default_rng(0).permutation(len(data.train_labels)) if name == "folder" else slice(None)
    x, y = data.train_images[order], data.train_labels[order]
    names = np.array(data.class_names)
    np.savez(path, x_train=x[:cut], y_train=y[:cut], x_test=x[cut:], y_test=y[cut:], class_names=names)
    return path


def first_images(source: str, name: str, count: int, directory: Path) -> Path:
    """The data set with the first ``count`` images of its training split."""
    data = load_dataset(name, path=source or None)
    path = directory / f"{name}_{count}.npz"
    x, y, names = data.train_images[:count], data.train_labels[:count], np.array(data.class_names)
    np.savez(path, x_train=x, y_train=y, x_test=data.test_images, y_test=data.test_labels, class_names=names)
    return path
