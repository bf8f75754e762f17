"""The source ``npz``: a NumPy archive of images and labels, under the keys of Keras, MedMNIST and others."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from efsgd_jax.data.archives import check_expansion
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

WHAT = "an .npz file with x_train, y_train (and x_test, y_test)"


class Keys(NamedTuple):
    """The names of the arrays in a file; a file without test arrays is split later."""

    images: str
    labels: str
    test_images: str
    test_labels: str


# Of Keras, of MedMNIST, of data without a split, and of numpy.savez with two arrays that were not named.
KNOWN_KEYS = (
    Keys("x_train", "y_train", "x_test", "y_test"),
    Keys("train_images", "train_labels", "test_images", "test_labels"),
    Keys("x", "y", "", ""),
    Keys("images", "labels", "", ""),
    Keys("arr_0", "arr_1", "", ""),
)


def read_npz(
    path: Path | str | None, class_names: tuple[str, ...] | None = None, *, labelled: bool = True, groups: str = ""
) -> RawDataset:
    """Reads the arrays of ``path``: images ``[N, H, W]``, ``[N, H, W, C]`` or ``[N, C, H, W]``, labels ``[N]`` or
    ``[N, 1]``.

    Their names are one of ``KNOWN_KEYS``; MedMNIST's validation part is not read. An array ``class_names`` of K strings
    in the file names the labels 0..K-1, unless the argument ``class_names`` is given. Pickled (object) arrays are never
    loaded, since unpickling can run arbitrary code from the file.

    Args:
      path: the .npz file.
      class_names: one name per label; None for those in the file, if it has any.
      labelled: whether labels are read; if not, they are zeros, and only images are needed.
      groups: name of the array with the group of each image, numbers or text; that of the test images has ``_test``
        appended. "" for no groups.

    Raises:
      UserError: the file does not exist, is not an archive or is damaged, has object arrays, or lacks a key.
    """
    file = check_path(path, "npz", WHAT)
    try:
        archive = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is not a readable .npz file ({one_line(error)}); supply {WHAT}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(f"{file} holds a single array, not an archive; save it with numpy.savez as {WHAT}")
    with archive:
        present = list(archive.files)
        keys = _keys(present, file, labelled)
        has_test = keys.test_images in present
        return RawDataset(
            train_images=_array(archive, keys.images, file),
            train_labels=_array(archive, keys.labels, file) if labelled else np.zeros(0),
            test_images=_array(archive, keys.test_images, file) if has_test else None,
            test_labels=_array(archive, keys.test_labels, file) if has_test and labelled else None,
            class_names=class_names or (_names(archive, file) if "class_names" in present else None),
            source=f"npz:{file}",
            groups=_groups(archive, groups, has_test, file) if groups else None,
        )


def _groups(archive: Any, name: str, has_test: bool, file: Path) -> np.ndarray:
    found = []
    for key in (name, f"{name}_test")[: 1 + has_test]:
        if key not in archive.files:
            raise UserError(
                f"{file} has no array {key} (it has: {', '.join(archive.files)}); add one group for each image, or "
                "correct --config.data.groups"
            )
        array = _array(archive, key, file)
        if array.ndim != 1 or array.dtype.kind not in "uiU":
            raise UserError(
                f"{file}: array {key} has type {array.dtype} and shape {array.shape}; save one whole number or text "
                "for each image"
            )
        found.append(array.astype(str))
    return np.concatenate(found)


def _keys(present: list[str], file: Path, labelled: bool) -> Keys:
    """The first of ``KNOWN_KEYS`` whose images are there.

    Raises:
      UserError: there are no images under a known name, no labels, or only one of the test part's two arrays.
    """
    keys = next((keys for keys in KNOWN_KEYS if keys.images in present), KNOWN_KEYS[0])
    missing = [key for key in (keys.images, keys.labels)[: 1 + labelled] if key not in present]
    test = (keys.test_images, keys.test_labels)
    if labelled and sum(key in present for key in test) == 1:
        missing += [key for key in test if key not in present]
    if not missing:
        return keys
    advice = f"supply {WHAT}"
    if len(present) >= 2 and keys.images not in present:
        advice += (
            f", such as by: python -c \"import numpy as np; d = np.load({str(file)!r}); np.savez('new.npz', "
            f"x_train=d['{present[0]}'], y_train=d['{present[1]}'])\""
        )
    elif keys.labels in missing:
        advice += ", or for images without labels set --config.data.classes=1"
    raise UserError(f"{file} has no array {' or '.join(missing)} (it has: {', '.join(present) or 'nothing'}); {advice}")


def _names(archive: Any, file: Path) -> tuple[str, ...]:
    names = _array(archive, "class_names", file)
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UserError(
            f"{file}: array class_names has type {names.dtype} and shape {names.shape}; save one text for each class, "
            "as numpy.array(['a', 'b'])"
        )
    return tuple(str(name) for name in names)


def _array(archive: Any, key: str, file: Path) -> np.ndarray:
    # ``numpy.savez`` appends .npy to the key; other programs may not.
    member = archive.zip.getinfo(f"{key}.npy" if f"{key}.npy" in archive.zip.namelist() else key)
    check_expansion(member.compress_size, member.file_size, f"{file}: array {key}")
    try:
        return np.asarray(archive[key])
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{file}: array {key} holds pickled objects, which are never loaded because they can run code; "
                "save it as a plain uint8 or integer array"
            ) from error
        raise UserError(f"{file}: array {key} is damaged ({one_line(error)}); make the file again") from error
    # MemoryError: the header states a size that does not fit in memory; TypeError, RuntimeError: encrypted, or not an
    # array.
    except (
        OSError, EOFError, KeyError, TypeError, RuntimeError, MemoryError, SyntaxError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise UserError(f"{file}: array {key} is damaged ({one_line(error)}); make the file again") from error
