"""Reads labelled images, made by any system, from an .npz file, to score them against a data set."""

from pathlib import Path

import numpy as np

from efsgd_jax.data import Dataset
from efsgd_jax.data.npz import read_npz
from efsgd_jax.data.validate import check_images, check_labels
from efsgd_jax.errors import UserError
from efsgd_jax.runs.sampling import Samples


def read_samples(path: str | Path, data: Dataset) -> Samples:
    """Reads the images ``x_train`` and labels ``y_train`` of a file, as ``sample`` writes it.

    Args:
      path: the .npz file.
      data: the data set whose image shape and classes the samples must have.

    Raises:
      UserError: there is no such file, it is damaged, an image has a NaN, the images have another size or number of
        channels, a label is none of the classes, or a class has no image.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"no such file: {file}; name an .npz file with x_train and y_train, as sample writes it")
    raw = read_npz(file, data.class_names)
    (images,) = check_images([raw.train_images], ["images"], raw.source)
    labels = check_labels(raw.train_labels, len(images), "labels", raw.source)
    if images.shape[1:] != data.spec.shape:
        raise UserError(
            f"{file}: the images are {_size(images.shape[1:])}; those of {data.source} are {_size(data.spec.shape)}"
        )
    k = data.spec.num_classes
    outside = (labels < 0) | (labels >= k)
    if outside.any():
        raise UserError(f"{file}: label {labels[outside.argmax()]} at index {outside.argmax()}; use 0..{k - 1}")
    absent = np.setdiff1d(np.arange(k), labels)
    if len(absent):
        raise UserError(
            f"{file}: class {data.class_names[absent[0]]!r} (label {absent[0]}) has no image; add some: scores of a "
            "set that lacks a class cannot be compared with other scores"
        )
    return Samples(images, labels, data.class_names)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"
