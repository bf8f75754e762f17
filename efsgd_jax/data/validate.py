"""Checks of paths, images, labels and classes for all data sources; their errors say what the user can do."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from efsgd_jax.data.scale import Range, refuse_outside, to_bytes, warn_if_dark
from efsgd_jax.errors import UserError


def one_line(error: object) -> str:
    """The text of an exception of another library, without line breaks and truncated to 200 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def check_path(path: Path | str | None, source: str, what: str, key: str = "data.path") -> Path:
    """Checks that ``path`` is an existing file or directory, and returns it with ``~`` expanded.

    Args:
      path: the path, or None if none was given.
      source: name of the data source, for errors.
      what: what the path should be, for errors.
      key: the config key that has the path, for errors.

    Raises:
      UserError: no path was given, or it does not exist or cannot be read.
    """
    if path is None or not str(path):
        raise UserError(f"data source {source!r} needs a path to {what}; set --config.{key}=PATH")
    result = Path(path).expanduser()
    try:
        exists = result.exists()
    except OSError as error:
        raise UserError(f"cannot read --config.{key}={result}: {one_line(error)}") from error
    if not exists:
        raise UserError(f"no such file or directory: {result}; set --config.{key} to {what}")
    return result


def check_images(
    parts: Sequence[np.ndarray], names: Sequence[str], where: str, value_range: Range | None = None
) -> list[np.ndarray]:
    """Checks the images and converts each part to uint8 ``[N, H, W, C]`` with C in {1, 3}.

    Integers are scaled from 0..255 and floats from 0..1, unless another range was declared. How an image is scaled does
    not depend on other images.

    Args:
      parts: the training part, and the test part if there is one.
      names: names of the parts, for errors.
      where: the source, for errors.
      value_range: the declared range, whose ends become 0 and 255; None if none was declared.

    Raises:
      UserError: a part is empty or has another type or shape, or a value is outside of the range or not finite.
    """
    parts = [_check_shape(part, name, where) for part, name in zip(parts, names, strict=True)]
    for part, name in zip(parts, names, strict=True):
        _check_finite(part, name, where)
    refuse_outside(parts, names, where, value_range)
    warn_if_dark(parts, where, value_range)
    return [to_bytes(part, value_range) for part in parts]


def _check_shape(images: np.ndarray, name: str, where: str) -> np.ndarray:
    if images.dtype.kind not in "uif":
        raise UserError(f"{where}: the {name} have dtype {images.dtype}; store them as uint8 (0..255)")
    if images.ndim >= 1 and len(images) == 0:
        raise UserError(f"{where}: there are no {name} (shape {images.shape}); add images or choose another file")
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4:
        raise UserError(
            f"{where}: the {name} have shape {images.shape}; expected (N, height, width) or (N, height, width, "
            "channels) or (N, channels, height, width)"
        )
    if images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):  # channels first, as in PyTorch
        images = np.moveaxis(images, 1, 3)
    if images.shape[3] not in (1, 3):
        raise UserError(
            f"{where}: the {name} have shape {images.shape}, that is {images.shape[3]} channels where 1 or 3 are "
            "expected; store gray (1) or RGB (3) images"
        )
    if 0 in images.shape:
        raise UserError(f"{where}: the {name} have shape {images.shape}, which holds no pixels; store real images")
    return images


def _check_finite(images: np.ndarray, name: str, where: str) -> None:
    if images.dtype.kind != "f":
        return
    bad = ~np.isfinite(images).all(axis=(1, 2, 3))
    if bad.any():
        index = int(bad.argmax())
        value = images[index][~np.isfinite(images[index])][0]
        raise UserError(f"{where}: the {name} contain {value}, first in image {index}; remove or repair that image")


def check_labels(labels: np.ndarray, num_images: int, name: str, where: str) -> np.ndarray:
    """Checks that there is one whole number per image, and returns the labels as int32 ``[N]``.

    ``check_classes`` checks the values of the labels.

    Raises:
      UserError: the labels are not one whole number per image, or one is beyond the range of int32.
    """
    if labels.dtype.kind not in "uifb":
        raise UserError(f"{where}: the {name} have dtype {labels.dtype}; store one integer 0..K-1 per image")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        hint = "; one-hot labels need .argmax(axis=1)" if labels.ndim == 2 else ""
        raise UserError(f"{where}: the {name} have shape {labels.shape}; expected (N,) or (N, 1){hint}")
    if len(labels) != num_images:
        raise UserError(
            f"{where}: {num_images} images but {len(labels)} labels ({name}); supply exactly one label per image"
        )
    if labels.dtype.kind == "f":
        bad = ~np.isfinite(labels) | (labels != np.rint(labels))
        if bad.any():
            index = int(bad.argmax())
            raise UserError(f"{where}: the {name} contain {labels[index]} at index {index}; labels must be integers")
    for index in (int(labels.argmax()), int(labels.argmin())):
        if abs(int(labels[index])) > np.iinfo(np.int32).max:
            raise UserError(f"{where}: the {name} contain {labels[index]} at index {index}; use labels 0..K-1")
    return labels.astype(np.int32)


def check_classes(
    train_labels: np.ndarray, test_labels: np.ndarray, class_names: tuple[str, ...] | None, where: str
) -> tuple[str, ...]:
    """Checks the class names and that every label is in ``0..K-1``, and returns the names.

    A class without a training image is allowed; a warning names it.

    Raises:
      UserError: there are no names or no classes, a label is negative or has no name, or names are empty or
        repeated.
    """
    if class_names is None:
        most = max(int(labels.max(initial=0)) for labels in (train_labels, test_labels))
        raise UserError(
            f"{where}: the classes are public, and have to be declared: labels do not say how many there are; set "
            f"--config.data.classes={max(most + 1, 2)}, or to their names with commas between them"
        )
    for labels, part in ((train_labels, "training"), (test_labels, "test")):
        for bad, reason in (
            (labels < 0, "negative"),
            (labels >= len(class_names), f"outside the {len(class_names)} classes"),
        ):
            if bad.any():
                index = int(bad.argmax())
                raise UserError(
                    f"{where}: {part} label {labels[index]} at index {index} is {reason}; use 0..K-1 for K classes, "
                    "and declare all of them by --config.data.classes"
                )
    if not class_names:
        raise UserError(
            f"{where}: there is no class; supply class folders, or name the classes by --config.data.classes"
        )
    if len(set(class_names)) != len(class_names) or not all(class_names):
        raise UserError(f"{where}: the class names {list(class_names)} are empty or repeated; give each its own name")
    absent = np.setdiff1d(np.arange(len(class_names)), train_labels)
    if len(absent):
        names = ", ".join(repr(class_names[i]) for i in absent[:5]) + (", ..." if len(absent) > 5 else "")
        warnings.warn(
            f"{where}: {len(absent)} of {len(class_names)} classes have no training image ({names}); images of them "
            "will be generated from noise alone; if they are not classes, remove them or set --config.data.classes",
            stacklevel=2,
        )
    return class_names


def warn_of_duplicates(hashes: Sequence[bytes], where: str) -> None:
    """Warns about records that are the same as another one; only the owner of the data sees warnings."""
    repeated = len(hashes) - len(set(hashes))
    if repeated:
        warnings.warn(
            f"{where}: {repeated} of {len(hashes)} images are the same, byte for byte, as another one; the guarantee "
            "is for each record, and one that is there twice has twice the epsilon: remove those that are the same "
            "image by mistake",
            stacklevel=2,
        )
