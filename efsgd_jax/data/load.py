"""``load_dataset``: the name of a source -> one ``Dataset``."""

import difflib
from pathlib import Path

from efsgd_jax.data.celeba import read_celeba
from efsgd_jax.data.dataset import Dataset
from efsgd_jax.data.digits import read_digits
from efsgd_jax.data.download import CLASS_NAMES, read_known
from efsgd_jax.data.folder import read_folder
from efsgd_jax.data.idx import read_idx
from efsgd_jax.data.npz import read_npz
from efsgd_jax.data.raw import RawDataset, to_dataset
from efsgd_jax.data.tfds import read_tfds
from efsgd_jax.errors import UserError

SOURCES = ("digits", "mnist", "fashion_mnist", "npz", "idx", "folder", "celeba", "tfds:NAME")
MAX_SIDE = 1024  # what anybody has made with privacy is far smaller, and memory ends


def load_dataset(
    name: str,
    *,
    path: Path | str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    attribute: str | None = None,
    test_fraction: float = 0.2,
) -> Dataset:
    """Read a labelled image set.

    Args:
      name: ``digits`` (bundled, 8x8), ``mnist`` and ``fashion_mnist`` (path, cache or download), ``npz``, ``idx``,
        ``folder`` (a directory or .zip), ``celeba``, or ``tfds:NAME``.
      path: the file or directory; for ``tfds:NAME`` the data_dir.
      image_size: side of the square images to return, centre-cropped and resized; None keeps the source's own
        (32 for CelebA).
      channels: 1 (gray) or 3 (RGB); None keeps the source's own.
      attribute: the label, for ``celeba`` (default "Male") and ``tfds:NAME`` (default "label").
      test_fraction: what to split off as the test part, by a fixed public permutation, where the source has none.

    Returns:
      A ``Dataset`` in which every class has at least one training image.

    Raises:
      UserError: anything the caller can fix, in one line.

    Examples:
      >>> data = load_dataset("digits")
      >>> data.train_images.shape, data.test_images.shape, data.spec.num_classes
      ((1438, 8, 8, 1), (359, 8, 8, 1), 10)
    """
    _check_arguments(name, path, image_size, channels, attribute, test_fraction)
    raw = _read(name, path, image_size, channels, attribute)
    return to_dataset(raw, image_size=image_size, channels=channels, test_fraction=test_fraction)


def _read(
    name: str, path: Path | str | None, image_size: int | None, channels: int | None, attribute: str | None
) -> RawDataset:
    if name.startswith("tfds:"):
        return read_tfds(name.removeprefix("tfds:"), path, attribute)
    if name in CLASS_NAMES:
        return read_known(name, path)
    match name:
        case "digits":
            return read_digits()
        case "npz":
            return read_npz(path)
        case "idx":
            return read_idx(path)
        case "folder":
            return read_folder(path, image_size, channels)
        case "celeba":
            return read_celeba(path, attribute, image_size, channels)
    close = difflib.get_close_matches(name, SOURCES, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"unknown data source {name!r}; {hint}set --config.data.name to one of {', '.join(SOURCES)}")


def _check_arguments(
    name: str,
    path: Path | str | None,
    image_size: int | None,
    channels: int | None,
    attribute: str | None,
    test_fraction: float,
) -> None:
    if not 0.0 < test_fraction < 1.0:
        raise UserError(f"test_fraction is {test_fraction}; set --config.data.test_fraction between 0 and 1, as 0.2")
    if image_size is not None and not 1 <= image_size <= MAX_SIDE:
        raise UserError(f"image_size is {image_size}; set --config.data.image_size from 1 to {MAX_SIDE}, such as 32")
    if channels not in (None, 1, 3):
        raise UserError(f"channels is {channels}; set --config.data.channels to 1 (gray) or 3 (RGB)")
    if name == "tfds:":
        raise UserError("data source 'tfds:' lacks the data set's name; set --config.data.name=tfds:NAME")
    if name == "digits" and path is not None:
        raise UserError(f"data source 'digits' is bundled and takes no path, but path is {path}; remove the path")
    if attribute is not None and name != "celeba" and not name.startswith("tfds:"):
        raise UserError(f"attribute is {attribute!r}, but {name!r} has no attributes; remove --config.data.attribute")
