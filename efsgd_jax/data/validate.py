"""What every source must satisfy: images, labels, classes and files, each with an error a person can act on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from efsgd_jax.errors import UserError


def one_line(error: object) -> str:
    """The text of a foreign exception without line breaks and cut to a readable length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


def check_path(path: Path | str | None, source: str, what: str) -> Path:
    """``path`` as an existing file or directory.

    Raises:
      UserError: no path was given or nothing is there.
    """
    if path is None or not str(path):
        raise UserError(f"data source {source!r} needs a path to {what}; set --config.data.path=PATH")
    result = Path(path).expanduser()
    try:
        exists = result.exists()
    except OSError as error:
        raise UserError(f"cannot read --config.data.path={result}: {one_line(error)}") from error
    if not exists:
        raise UserError(f"no such file or directory: {result}; set --config.data.path to {what}")
    return result


def check_images(parts: Sequence[np.ndarray], names: Sequence[str], where: str) -> list[np.ndarray]:
    """Each part as uint8 ``[N, H, W, C]``, C in {1, 3}.

    Accepted are uint8; other integers within 0..255; finite floats that either all lie in [0, 1] (scaled by 255 and
    rounded) or are all whole numbers within 0..255. All parts are read by one convention, so that a dark test part
    cannot be scaled differently from its training part.

    Raises:
      UserError: another type, shape or range, a NaN, or an empty part.
    """
    parts = [_check_shape(part, name, where) for part, name in zip(parts, names, strict=True)]
    for part, name in zip(parts, names, strict=True):
        _check_finite(part, name, where)
    unit = all(part.dtype.kind == "f" and part.min() >= 0 and part.max() <= 1 for part in parts)
    if unit:
        return [np.rint(part * 255.0).astype(np.uint8) for part in parts]
    return [_whole_to_uint8(part, name, where) for part, name in zip(parts, names, strict=True)]


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
            "channels)"
        )
    if images.shape[3] not in (1, 3):
        hint = "move the channels last" if images.shape[1] in (1, 3) else "store gray (1) or RGB (3) images"
        raise UserError(
            f"{where}: the {name} have shape {images.shape}, that is {images.shape[3]} channels where 1 or 3 are "
            f"expected; {hint}"
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


def _whole_to_uint8(images: np.ndarray, name: str, where: str) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    bad = (images < 0) | (images > 255)
    if images.dtype.kind == "f":
        bad |= images != np.rint(images)
    if bad.any():
        index = int(bad.any(axis=(1, 2, 3)).argmax())
        value = images[index][bad[index]][0]
        raise UserError(
            f"{where}: the {name} ({images.dtype}) contain the value {value:g} in image {index}; "
            "store uint8 0..255, whole numbers 0..255, or floats in [0, 1]"
        )
    return images.astype(np.uint8)


def check_labels(labels: np.ndarray, num_images: int, name: str, where: str) -> np.ndarray:
    """``labels`` as int32 ``[N]``; their values are the business of ``check_classes``.

    Raises:
      UserError: not one whole number per image.
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
    index = int(labels.argmax())
    if labels[index] > np.iinfo(np.int32).max:
        raise UserError(f"{where}: the {name} contain {labels[index]} at index {index}; use labels 0..K-1")
    return labels.astype(np.int32)


def check_classes(
    train_labels: np.ndarray, test_labels: np.ndarray, class_names: tuple[str, ...] | None, where: str
) -> tuple[str, ...]:
    """The class names, once every label is in ``0..K-1`` and each class occurs in the training part.

    Raises:
      UserError: a negative label, one beyond the names, a gap, a class without training images, a single class, or
        names that are empty or repeated.
    """
    for labels, part in ((train_labels, "training"), (test_labels, "test")):
        for bad, reason in ((labels < 0, "negative"), _beyond(labels, class_names)):
            if bad.any():
                index = int(bad.argmax())
                raise UserError(f"{where}: {part} label {labels[index]} at index {index} is {reason}; use 0..K-1")
    every = np.concatenate([train_labels, test_labels])
    present = np.unique(every)
    if class_names is None:
        # Sorted distinct non-negative integers are 0..K-1 exactly if the i-th of them is i.
        gap = present != np.arange(len(present))
        if gap.any():
            missing, value = int(gap.argmax()), int(present[gap.argmax()])
            index = int((every == value).argmax())
            part = "training" if index < len(train_labels) else "test"
            index -= 0 if part == "training" else len(train_labels)
            raise UserError(
                f"{where}: no image has label {missing}, but {part} label {value} at index {index} is larger; "
                "renumber the labels 0..K-1 without gaps"
            )
        class_names = tuple(str(i) for i in range(len(present)))
    if len(class_names) < 2:
        raise UserError(f"{where}: all labels are the same class ({class_names[0]!r}); supply at least two classes")
    if len(set(class_names)) != len(class_names) or not all(class_names):
        raise UserError(f"{where}: the class names {list(class_names)} are empty or repeated; give each its own name")
    absent = np.setdiff1d(np.arange(len(class_names)), train_labels)
    if len(absent):
        raise UserError(
            f"{where}: class {class_names[absent[0]]!r} (label {absent[0]}) has no training image; "
            "add images of it or leave the class out"
        )
    return class_names


def _beyond(labels: np.ndarray, class_names: tuple[str, ...] | None) -> tuple[np.ndarray, str]:
    if class_names is None:
        return np.zeros(len(labels), bool), ""
    return labels >= len(class_names), f"outside the {len(class_names)} classes"
