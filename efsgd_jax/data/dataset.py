"""``Dataset``, the frozen class of uint8 images and integer labels that every data source returns."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Allocates a uint8 array of a shape, in memory or on disk.
Empty = Callable[[tuple[int, ...]], np.ndarray]
# Number of records that are hashed at a time.
HASHED = 4096


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """The public properties of a data set that a model depends on.

    Attributes:
      image_size: height and width of the images, in pixels.
      channels: number of channels, 1 (grey) or 3 (RGB).
      num_classes: number of classes.
    """

    image_size: int
    channels: int
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(height, width, channels)`` of one image."""
        return (self.image_size, self.image_size, self.channels)


class Recorded(NamedTuple):
    """A fingerprint that need not be computed again, and the very arrays that it is of.

    Attributes:
      sha256: the fingerprint.
      arrays: images, labels and groups of the training part; a data set with another one of them has no such record.
    """

    sha256: str
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray | None]


@dataclasses.dataclass(frozen=True, repr=False)
class Dataset:
    """Images and labels, divided into a training part and a test part, which is never trained on.

    Its ``repr``, as a notebook shows it, is a summary without any image data.

    Attributes:
      train_images: uint8 ``[N, S, S, C]``, C in {1, 3}, 0..255.
      train_labels: int32 ``[N]`` in ``0..len(class_names) - 1``.
      test_images: uint8 ``[M, S, S, C]``.
      test_labels: int32 ``[M]``.
      class_names: one name per label value.
      source: description of where the images came from, such as "npz:/data/mnist.npz".
      train_groups: int32 ``[N]`` in ``0..G - 1``, the group of each training image, such as the person that it is of;
        None if each image is a unit of its own.
      recorded: the fingerprint of a training part that stays on disk, if it is known.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    train_groups: np.ndarray | None = None
    recorded: "Recorded | None" = None

    @property
    def on_disk(self) -> bool:
        """Whether the training images are memory-mapped, as those of the source ``prepared``."""
        return isinstance(self.train_images, np.memmap)

    @property
    def num_units(self) -> int:
        """The number of training images or, if they have groups, of groups."""
        return len(self.train_labels) if self.train_groups is None else int(self.train_groups.max()) + 1

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(self.train_images.shape[1], self.train_images.shape[3], len(self.class_names))

    def __repr__(self) -> str:
        of = "" if self.train_groups is None else f" of {self.num_units} groups"
        return (
            f"Dataset({len(self.train_labels)}{of} training and {len(self.test_labels)} test images of shape "
            f"{self.spec.shape}, classes {self.class_names}, source {self.source!r})"
        )

    def fingerprint(self) -> str:
        """SHA-256 of the training part, by which a resumed run detects changed data. Private: never release it."""
        arrays = (self.train_images, self.train_labels, self.train_groups)
        if self.recorded and all(a is b for a, b in zip(arrays, self.recorded.arrays, strict=True)):
            return self.recorded.sha256
        digest = hashlib.sha256()
        groups = [] if self.train_groups is None else [self.train_groups]
        for array in (self.train_images, self.train_labels, *groups):
            digest.update(str(array.shape).encode())
            for start in range(0, len(array), HASHED):  # in parts, for arrays that do not fit into memory
                digest.update(np.ascontiguousarray(array[start : start + HASHED]).tobytes())
        return digest.hexdigest()


def to_unit_range(images: np.ndarray) -> np.ndarray:
    """Converts uint8 0..255 to float32 in [-1, 1], the range that all models use."""
    return images.astype(np.float32) / 127.5 - 1.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Converts floats in [-1, 1] to uint8 0..255, rounded; values outside of the range are clamped."""
    return np.clip(np.rint((np.asarray(images) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised uint8 array."""
    return np.empty(shape, np.uint8)
