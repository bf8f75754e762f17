"""``load_dataset``, which reads a data source by its name into a ``Dataset``."""

import difflib
from pathlib import Path

from efsgd_jax.data.celeba import read_celeba
from efsgd_jax.data.dataset import Dataset, Empty, in_memory
from efsgd_jax.data.declarations import only_class, parse_classes, parse_value_range
from efsgd_jax.data.digits import read_digits
from efsgd_jax.data.download import CLASS_NAMES, read_known
from efsgd_jax.data.folder import read_folder
from efsgd_jax.data.idx import read_idx
from efsgd_jax.data.npz import read_npz
from efsgd_jax.data.parquet import read_parquet
from efsgd_jax.data.prepared import read_prepared
from efsgd_jax.data.raw import RawDataset, to_dataset
from efsgd_jax.data.scale import Range
from efsgd_jax.data.tfds import read_tfds
from efsgd_jax.errors import UserError

SOURCES = ("digits", "mnist", "fashion_mnist", "npz", "idx", "folder", "parquet", "celeba", "prepared", "tfds:NAME")
# Those that can say which person an image is of.
GROUPED = ("npz", "folder", "parquet", "celeba")
# Largest image size that is accepted, to bound the memory. It is far above the sizes that are feasible with privacy.
MAX_SIDE = 1024


def load_dataset(
    name: str,
    *,
    path: Path | str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    attribute: str | None = None,
    test_fraction: float = 0.2,
    classes: str | None = None,
    value_range: str | None = None,
    labels: str = "",
    groups: str = "",
    split_by_place: bool = False,
    empty: Empty = in_memory,
) -> Dataset:
    """Reads a labelled image set.

    How a record is read, and whether it is in the training or the test part, depends on that record alone and on public
    settings; with ``split_by_place`` the part depends on the record's place in the source alone.

    Args:
      name: ``digits`` (bundled, 8x8), ``mnist`` and ``fashion_mnist`` (path, cache or download), ``npz``, ``idx``,
        ``folder`` (a directory or .zip), ``parquet``, ``celeba``, ``prepared``, or ``tfds:NAME``.
      path: the file or directory; for ``tfds:NAME`` the data_dir.
      image_size: height and width to which images are centre-cropped and resized; None keeps the source's own size
        (32 for CelebA).
      channels: number of channels, 1 (grey) or 3 (RGB), to which every image is converted; None means 3 for image files
        (``folder``, ``parquet``, ``celeba``), and for the other sources the number of channels of their arrays.
      attribute: name of the attribute or column that is the label, for ``celeba`` (default "Male"), ``tfds:NAME``,
        ``parquet`` and a ``folder`` with a list of labels (default "label").
      test_fraction: probability of each record to be held out, if the source has no test part; the choice depends on
        the record's own bytes.
      classes: the number of classes or their names with commas between them; None for the classes that the source names
        by its folders or by an array ``class_names``.
      value_range: the values that become black and white, such as ``0..16``; None for 0..255 if the values are integers
        and 0..1 if they are floats.
      labels: for ``folder``, the list of the images' labels, such as ``labels.csv``, by its name below ``path`` or its
        own path; "" for class folders, or for a list that has a known name, such as StyleGAN's dataset.json.
      groups: which person, or other unit, each image is of: for ``folder`` and ``celeba`` a list, such as
        ``patients.csv``, or for ``folder`` the word "folder"; for ``npz`` the name of an array, for ``parquet`` of a
        column. The training and the test part are then divided anew, by group. "" if each image is a unit.
      split_by_place: see above; for guarantees of a region of each image, where the places of records are public and
        the pixels of the region must not decide which part an image is in. Not for ``prepared`` or with ``groups``.
      empty: ``empty(shape)`` allocates the uint8 arrays of images; by default in memory.

    Returns:
      A ``Dataset``; classes without an image are possible.

    Raises:
      UserError: the arguments or the data are not usable; the message says in one line what to do.

    Examples:
      >>> data = load_dataset("digits")
      >>> data.train_images.shape, data.test_images.shape, data.spec.num_classes
      ((1422, 8, 8, 1), (375, 8, 8, 1), 10)
    """
    if name == "prepared":
        return read_prepared(
            path,
            {
                "image_size": image_size, "channels": channels, "attribute": attribute, "test_fraction": test_fraction,
                "classes": classes, "value_range": value_range, "labels": labels, "groups": groups,
            },
        )  # fmt: skip
    _check_arguments(name, path, image_size, channels, attribute, test_fraction, value_range, labels, groups)
    declared, limits = parse_classes(classes or ""), parse_value_range(value_range or "")
    raw = _read(name, path, image_size, channels, attribute, declared, limits, labels, groups, empty)
    return to_dataset(
        raw,
        image_size=image_size,
        channels=channels,
        test_fraction=test_fraction,
        classes=declared,
        value_range=limits,
        # The images of these published data sets are not the user's to change, so that there is no warning about them.
        names_duplicates=name != "digits" and name not in CLASS_NAMES,
        split_by_place=split_by_place,
        empty=empty,
    )


def _read(
    name: str,
    path: Path | str | None,
    image_size: int | None,
    channels: int | None,
    attribute: str | None,
    classes: int | tuple[str, ...] | None,
    value_range: Range | None,
    labels: str,
    groups: str,
    empty: Empty,
) -> RawDataset:
    if name.startswith("tfds:"):
        return read_tfds(name.removeprefix("tfds:"), path, attribute)
    if name in CLASS_NAMES:
        return read_known(name, path)
    match name:
        case "digits":
            return read_digits()
        case "npz":
            return read_npz(path, labelled=not only_class(classes), groups=groups)
        case "idx":
            return read_idx(path)
        case "folder":
            return read_folder(path, image_size, channels, classes, value_range, labels, attribute, groups, empty)
        case "parquet":
            return read_parquet(path, image_size, channels, classes, value_range, attribute, groups, empty)
        case "celeba":
            return read_celeba(path, attribute, image_size, channels, value_range, groups, empty)
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
    value_range: str | None,
    labels: str,
    groups: str,
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
    if name == "digits" and value_range:
        raise UserError(
            f"value_range is {value_range!r}, but that of 'digits' is known: 0..16; remove --config.data.value_range"
        )
    if labels and name != "folder":
        raise UserError(f"labels is {labels!r}, but only 'folder' has a list of labels; remove --config.data.labels")
    if groups and name not in GROUPED:
        raise UserError(
            f"groups is {groups!r}, but {name!r} has no groups; remove --config.data.groups, or use one of the sources "
            f"{', '.join(GROUPED)}"
        )
    if attribute is not None and name not in ("celeba", "folder", "parquet") and not name.startswith("tfds:"):
        raise UserError(f"attribute is {attribute!r}, but {name!r} has no attributes; remove --config.data.attribute")
