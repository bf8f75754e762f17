"""``RawDataset``, the unchecked data that a source returns, and its conversion to a ``Dataset``."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from efsgd_jax.data.dataset import Dataset, Empty, in_memory
from efsgd_jax.data.declarations import declared_classes, label_numbers, only_class
from efsgd_jax.data.groups import numbered, split_by_group
from efsgd_jax.data.resize import convert_channels, resize_square
from efsgd_jax.data.scale import Range
from efsgd_jax.data.split import array_hashes, place_hashes, split_by_record
from efsgd_jax.data.validate import check_classes, check_images, check_labels, warn_of_duplicates
from efsgd_jax.errors import UserError

# Number of images that are resized and converted at a time.
BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class RawDataset:
    """The arrays that a source has read, without any checks.

    Attributes:
      train_images: ``[N, H, W]`` or ``[N, H, W, C]``, uint8 or a float or integer type that ``check_images`` accepts.
      train_labels: ``[N]`` or ``[N, 1]``, numbers or text.
      source: description of where the arrays came from; error messages begin with it.
      test_images: test images, like the training images; None if the source has no test part, so that some of the
        training images are held out, each independently of the others.
      test_labels: test labels, like the training labels; None if there are no test images.
      class_names: one name per label value; None if the classes must be declared.
      value_range: the values that become 0 and 255; None if the source does not determine them.
      hashes: ``record_hash`` of the stored bytes of each record, training part first; None to hash the arrays' rows.
      groups: the name of each record's group, text, training part first; None if each record is a unit of its own.
      known_groups: what names the groups of the records, such as "the column patient of labels.csv", if it was found
        and not asked for.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    source: str
    test_images: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    value_range: Range | None = None
    hashes: list[bytes] | None = None
    groups: np.ndarray | None = None
    known_groups: str = ""

    def record_hashes(self) -> list[bytes]:
        """The hash of each record, training part first."""
        if self.hashes is not None:
            return self.hashes
        test = [] if self.test_images is None else array_hashes(self.test_images)
        return array_hashes(self.train_images) + test

    def in_one_part(self, empty: Empty) -> "RawDataset":
        """The records of both parts in one, whose images ``empty`` allocates, without a test part.

        Raises:
          UserError: the images of the two parts have different shapes.
        """
        if self.test_images is None or self.test_labels is None:
            return self
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise UserError(
                f"{self.source}: the training images have shape {self.train_images.shape[1:]} and the test images "
                f"{self.test_images.shape[1:]}; with --config.data.groups they are divided anew and must have one shape"
            )
        return dataclasses.replace(
            self,
            train_images=_rows_of([self.train_images, self.test_images], [None, None], empty),
            train_labels=np.concatenate([self.train_labels, self.test_labels]),
            test_images=None,
            test_labels=None,
            hashes=self.record_hashes(),
        )

    def without_labels(self, name: str) -> "RawDataset":
        """The same images, all of one class with this name."""
        test = None if self.test_images is None else np.zeros(len(self.test_images), np.int32)
        train = np.zeros(len(self.train_images), np.int32)
        return dataclasses.replace(self, train_labels=train, test_labels=test, class_names=(name,))


def to_dataset(
    raw: RawDataset,
    *,
    image_size: int | None,
    channels: int | None,
    test_fraction: float,
    classes: int | tuple[str, ...] | None = None,
    value_range: Range | None = None,
    names_duplicates: bool = True,
    split_by_place: bool = False,
    empty: Empty = in_memory,
) -> Dataset:
    """Checks, splits, crops, resizes and converts ``raw``.

    The result for each record depends on that record and on declared settings only.

    Args:
      raw: the data that the source has read.
      image_size: height and width of the images to return; None keeps the source's own size, which must be square.
      channels: number of channels to return, 1 or 3; None keeps the source's own.
      test_fraction: probability of each record to be held out, if the source has no test part.
      classes: the declared classes, as ``parse_classes`` returns them. If it is one, labels are not read.
      value_range: the declared range of values; it is used if the source does not determine the range.
      names_duplicates: whether to warn about records that occur more than once.
      split_by_place: whether a record's place in the source decides whether it is held out, and not its own bytes.
      empty: what allocates the arrays of images that are returned.

    Raises:
      UserError: the images or labels are not usable; the message says which and what to do.
    """
    if only_class(classes):
        raw = raw.without_labels(only_class(classes))
    if raw.groups is not None:
        return _grouped(raw, image_size, channels, test_fraction, classes, value_range, names_duplicates, empty)
    if raw.known_groups:
        warnings.warn(
            f"{raw.source}: {raw.known_groups} says which person each image is of, but the guarantee is for one image: "
            "a person with several images has several times the epsilon; to protect persons set --config.data.groups",
            stacklevel=2,
        )
    where = raw.source
    train = test = None  # the rows of the two parts, if they are divided here
    value_range = raw.value_range or value_range
    names = declared_classes(classes, raw.class_names, where)
    if raw.test_images is None or raw.test_labels is None:
        (images,) = check_images([raw.train_images], ["training images"], where, value_range)
        numbers = label_numbers(raw.train_labels, names, "training labels", where)
        labels = check_labels(numbers, len(images), "training labels", where)
        # Labels are checked before the split, so that the indices in messages are those of the user's own array.
        class_names = check_classes(labels, labels[:0], names, where)  # labels[:0]: there are no test labels yet
        hashes = raw.record_hashes()
        parts = place_hashes(len(images)) if split_by_place else hashes
        train, test = split_by_record(parts, test_fraction, where)
        train_images = test_images = images
        train_labels, test_labels = labels[train], labels[test]
    else:
        train_images, test_images = check_images(
            [raw.train_images, raw.test_images], ["training images", "test images"], where, value_range
        )
        train_numbers = label_numbers(raw.train_labels, names, "training labels", where)
        test_numbers = label_numbers(raw.test_labels, names, "test labels", where)
        train_labels = check_labels(train_numbers, len(train_images), "training labels", where)
        test_labels = check_labels(test_numbers, len(test_images), "test labels", where)
        class_names = check_classes(train_labels, test_labels, names, where)
        hashes = raw.record_hashes() if names_duplicates else []
        if train_images.shape[3] != test_images.shape[3] and channels is None:
            raise UserError(
                f"{where}: the training images have {train_images.shape[3]} channel(s) but the test images have "
                f"{test_images.shape[3]}; set --config.data.channels=1 or 3"
            )
        if train_images.shape[1:3] != test_images.shape[1:3] and image_size is None:
            raise UserError(
                f"{where}: the training images are {_size(train_images)} but the test images are "
                f"{_size(test_images)}; set --config.data.image_size"
            )
    if names_duplicates:
        warn_of_duplicates(hashes, where)
    if image_size is None and train_images.shape[1] != train_images.shape[2]:
        raise UserError(
            f"{where}: the images are {_size(train_images)} (width x height), not square; "
            "set --config.data.image_size to centre-crop and resize them"
        )
    target = image_size or train_images.shape[1]
    return Dataset(
        train_images=_converted(train_images, train, target, channels, empty),
        train_labels=train_labels,
        test_images=_converted(test_images, test, target, channels, empty),
        test_labels=test_labels,
        class_names=class_names,
        source=where,
    )


def _grouped(
    raw: RawDataset,
    image_size: int | None,
    channels: int | None,
    test_fraction: float,
    classes: int | tuple[str, ...] | None,
    value_range: Range | None,
    names_duplicates: bool,
    empty: Empty,
) -> Dataset:
    """``to_dataset`` of records that have groups: both parts together, divided by group."""
    assert raw.groups is not None
    whole = raw.in_one_part(empty)
    if len(raw.groups) != len(whole.train_images):
        raise UserError(
            f"{raw.source}: {len(whole.train_images)} images but {len(raw.groups)} groups; supply exactly one group "
            "for each image"
        )
    train, test = split_by_group(raw.groups, test_fraction, raw.source)
    hashes = whole.record_hashes()
    divided = dataclasses.replace(
        whole,
        train_images=_rows_of([whole.train_images], [train], empty),
        train_labels=whole.train_labels[train],
        test_images=_rows_of([whole.train_images], [test], empty),
        test_labels=whole.train_labels[test],
        hashes=[hashes[i] for i in (*train, *test)],
        groups=None,
        known_groups="",
    )
    dataset = to_dataset(
        divided,
        image_size=image_size,
        channels=channels,
        test_fraction=test_fraction,
        classes=classes,
        value_range=value_range,
        names_duplicates=names_duplicates,
        empty=empty,
    )
    return dataclasses.replace(dataset, train_groups=numbered(raw.groups[train]))


def _rows_of(arrays: Sequence[np.ndarray], rows: Sequence[np.ndarray | None], empty: Empty) -> np.ndarray:
    """Rows of several arrays, None for all rows, one after the other; uint8 arrays in parts, allocated by ``empty``."""
    if any(array.dtype != np.uint8 for array in arrays):
        return np.concatenate([a if r is None else a[r] for a, r in zip(arrays, rows, strict=True)])
    chosen = [np.arange(len(a)) if r is None else r for a, r in zip(arrays, rows, strict=True)]
    result, at = empty((sum(map(len, chosen)), *arrays[0].shape[1:])), 0
    for array, places in zip(arrays, chosen, strict=True):
        for start in range(0, len(places), BLOCK):
            some = places[start : start + BLOCK]
            result[at : at + len(some)] = array[some]
            at += len(some)
    return result


def _converted(
    images: np.ndarray, rows: np.ndarray | None, size: int, channels: int | None, empty: Empty
) -> np.ndarray:
    """The images ``rows``, None for all, resized and converted; in parts, so that they need not fit into memory."""
    shape = (size, size, channels or images.shape[3])
    if rows is None and images.shape[1:] == shape:
        return images
    rows = np.arange(len(images)) if rows is None else rows
    result = empty((len(rows), *shape))
    for start in range(0, len(rows), BLOCK):
        some = images[rows[start : start + BLOCK]]
        result[start : start + BLOCK] = convert_channels(resize_square(some, size), channels)
    return result


def _size(images: np.ndarray) -> str:
    return f"{images.shape[2]}x{images.shape[1]}"
