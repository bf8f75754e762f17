"""The source ``npz``: a NumPy archive with Keras' keys x_train, y_train, x_test, y_test; optionally class_names."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from efsgd_jax.data.archives import check_expansion
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

WHAT = "an .npz file with x_train, y_train (and x_test, y_test)"


def read_npz(
    path: Path | str | None, class_names: tuple[str, ...] | None = None, *, labelled: bool = True
) -> RawDataset:
    """Reads the arrays of ``path``: images ``[N, H, W]`` or ``[N, H, W, C]``, labels ``[N]`` or ``[N, 1]``.

    An array ``class_names`` of K strings in the file names the labels 0..K-1, unless the argument ``class_names`` is
    given. Pickled (object) arrays are never loaded, since unpickling can run arbitrary code from the file.

    Args:
      path: the .npz file.
      class_names: one name per label; None for those in the file, if it has any.
      labelled: whether labels are read; if not, they are zeros, and only x_train is needed.

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
        keys = list(archive.files)
        missing = [key for key in ("x_train", "y_train")[: 1 + labelled] if key not in keys]
        if labelled and ("x_test" in keys) != ("y_test" in keys):
            missing += [key for key in ("x_test", "y_test") if key not in keys]
        if missing:
            raise UserError(
                f"{file} has no array {' or '.join(missing)} (it has: {', '.join(keys) or 'nothing'}); supply {WHAT}"
            )
        has_test = "x_test" in keys
        return RawDataset(
            train_images=_array(archive, "x_train", file),
            train_labels=_array(archive, "y_train", file) if labelled else np.zeros(0),
            test_images=_array(archive, "x_test", file) if has_test else None,
            test_labels=_array(archive, "y_test", file) if has_test and labelled else None,
            class_names=class_names or (_names(archive, file) if "class_names" in keys else None),
            source=f"npz:{file}",
        )


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
