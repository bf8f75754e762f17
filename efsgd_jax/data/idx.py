"""The source ``idx``: a directory of files in MNIST's own format, plain or gzipped."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from efsgd_jax.data.archives import check_expansion
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

WHAT = "a directory with train-images-idx3-ubyte, train-labels-idx1-ubyte (plain or .gz)"
# The number for unsigned bytes in the header of an idx file.
_UINT8 = 0x08


def read_idx(path: Path | str | None, class_names: tuple[str, ...] | None = None) -> RawDataset:
    """Reads the files ``train-*`` as the training part and, if they exist, ``t10k-*`` as the test part.

    Names may be written ``train-images-idx3-ubyte`` or ``train-images.idx3-ubyte``, each with or without ``.gz``.

    Args:
      path: the directory.
      class_names: one name per label; None if the classes are declared elsewhere.

    Raises:
      UserError: ``path`` is not a directory, or a file is missing or damaged.
    """
    root = check_path(path, "idx", WHAT)
    if not root.is_dir():
        raise UserError(f"{root} is not a directory; set --config.data.path to {WHAT}")
    files = {(part, kind): _find(root, part, kind) for part in ("train", "t10k") for kind in ("images", "labels")}
    absent = [f"{part}-{kind}" for (part, kind), file in files.items() if file is None]
    if absent == ["t10k-images", "t10k-labels"]:
        absent = []
    if absent:
        raise UserError(f"{root} has no {' and no '.join(absent)} idx file; supply {WHAT}")
    arrays = {
        key: None if file is None else read_idx_file(file, 3 if key[1] == "images" else 1)
        for key, file in files.items()
    }
    train_images, train_labels = arrays["train", "images"], arrays["train", "labels"]
    assert train_images is not None
    assert train_labels is not None
    return RawDataset(
        train_images=train_images,
        train_labels=train_labels,
        test_images=arrays["t10k", "images"],
        test_labels=arrays["t10k", "labels"],
        class_names=class_names,
        source=f"idx:{root}",
    )


def read_idx_file(file: Path, ndim: int) -> np.ndarray:
    """Reads one idx file of unsigned bytes with ``ndim`` dimensions.

    The header is two zero bytes, the type (8 for unsigned bytes), the number of dimensions, and the size of each
    dimension as a big-endian 32-bit integer. The values follow in C order.

    Raises:
      UserError: the file is unreadable, has another type or number of dimensions, or does not hold as many values as
        its header says.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            header = stream.read(4 + 4 * ndim)
            if len(header) < 4 + 4 * ndim or header[:4] != bytes([0, 0, _UINT8, ndim]):
                raise UserError(
                    f"{file} begins with {header[:4].hex(' ') or 'nothing'}, not with 00 00 08 {ndim:02x} as an idx "
                    f"file of bytes with {ndim} dimension(s) does; fetch the file again"
                )
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4", ndim, offset=4))
            check_expansion(file.stat().st_size, math.prod(shape), str(file))
            data = stream.read(math.prod(shape) + 1)  # one byte more, to notice a file that is too long
    except (OSError, EOFError, MemoryError, zlib.error) as error:
        raise UserError(f"cannot read {file} ({one_line(error)}); fetch the file again") from error
    if len(data) != math.prod(shape):
        found = f"{len(data)}" if len(data) < math.prod(shape) else "more"
        raise UserError(
            f"{file} should hold {math.prod(shape)} values (shape {shape}) but holds {found}; fetch the file again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _find(root: Path, part: str, kind: str) -> Path | None:
    """The file of a part, train or t10k, with its images or labels; None if there is none."""
    ndim = 3 if kind == "images" else 1
    names = [f"{part}-{kind}{separator}idx{ndim}-ubyte{suffix}" for separator in "-." for suffix in ("", ".gz")]
    return next((root / name for name in names if (root / name).is_file()), None)
