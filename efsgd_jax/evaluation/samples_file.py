"""Reads labelled images, made by any system, from a file or directory, to score them against a data set."""

import dataclasses
from pathlib import Path

import numpy as np

from efsgd_jax.data import Dataset
from efsgd_jax.data.declarations import label_numbers, parse_value_range
from efsgd_jax.data.folder import read_folder
from efsgd_jax.data.npz import read_npz
from efsgd_jax.data.parquet import read_parquet
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.validate import check_images, check_labels
from efsgd_jax.errors import UserError
from efsgd_jax.images import folder_names
from efsgd_jax.runs.sampling import Samples

WHAT = "an .npz file with x_train and y_train, class folders, or a directory that sample wrote"


def read_samples(path: str | Path, data: Dataset, value_range: str = "", *, labelled: bool = True) -> Samples:
    """Reads the training part of what ``sample`` or another system wrote.

    Args:
      path: an .npz file; a directory or .zip of class folders; Parquet files; or a directory that ``sample`` wrote.
        Class folders have the names of the data set's classes, or those that ``sample`` gives them.
      data: the data set whose image shape and classes the samples must have.
      value_range: the values that become black and white, such as -1..1; "" for 0..255 of integers and 0..1 of floats.
      labelled: whether labels are read; if not, they are zeros, and an .npz file needs images only.

    Raises:
      UserError: there is no such file, it is damaged, an image has a NaN, the images have another size or number of
        channels, a label or folder is none of the classes, or a class has no image.
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise UserError(f"no such file: {file}; name {WHAT}")
    try:
        raw = _read(file, data, labelled)
        (images,) = check_images([raw.train_images], ["images"], raw.source, parse_value_range(value_range))
    except UserError as error:  # the keys of the config are for the real images
        text = str(error).replace("--config.data.value_range", "--samples_range")
        other = "ask for --metrics=fidelity,copying, which need no labels, without a protocol"
        raise UserError(text.replace("for images without labels set --config.data.classes=1", other)) from error
    if images.shape[1:] != data.spec.shape:
        raise UserError(
            f"{file}: the images are {_size(images.shape[1:])}; those of {data.source} are {_size(data.spec.shape)}"
        )
    if not labelled:
        return Samples(images, np.zeros(len(images), np.int32), data.class_names)
    numbers = label_numbers(raw.train_labels, data.class_names, "labels", raw.source)
    labels = check_labels(numbers, len(images), "labels", raw.source)
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


def _read(path: Path, data: Dataset, labelled: bool) -> RawDataset:
    """Reads the files below ``path``, in the first of the formats that is there."""
    if path.is_dir():
        written = next((p for name in ("samples.npz", "png", "data") if (p := path / name).exists()), None)
        path = written or path
    if path.suffix == ".npz":
        return read_npz(path, data.class_names, labelled=labelled)
    channels = data.spec.channels
    if path.suffix == ".parquet" or (path.is_dir() and any(path.rglob("*.parquet"))):
        return read_parquet(path, None, channels)
    if not path.is_dir() and path.suffix != ".zip":
        raise UserError(f"{path} is not of a known format; name {WHAT}")
    raw = read_folder(path, None, channels)
    found = raw.class_names or ()
    numbers = {name: i for names in (folder_names(data.class_names), data.class_names) for i, name in enumerate(names)}
    unknown = [name for name in found if name not in numbers]
    if unknown:
        raise UserError(
            f"{path} has the class folder {unknown[0]!r}; the classes of {data.source} are "
            f"{', '.join(data.class_names)}"
        )
    labels = np.array([numbers[name] for name in found])[raw.train_labels]
    return dataclasses.replace(raw, train_labels=labels)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]} with {shape[2]} channel{'s' if shape[2] > 1 else ''}"
