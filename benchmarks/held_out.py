"""A data set without its test split, for choices: the test split is not looked at while options are chosen."""

from pathlib import Path

import numpy as np

from efsgd_jax import load_dataset

HELD_OUT = 0.1


def without_test_split(source: str, name: str, directory: Path) -> Path:
    """The training split alone, its last part in the place of the test split."""
    data = load_dataset(name, path=source or None)
    cut = round((1 - HELD_OUT) * len(data.train_labels))
    path = directory / f"{name}.npz"
    x, y = data.train_images, data.train_labels
    names = np.array(data.class_names)
    np.savez(path, x_train=x[:cut], y_train=y[:cut], x_test=x[cut:], y_test=y[cut:], class_names=names)
    return path
