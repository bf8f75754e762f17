"""Decoding of image files to uint8 arrays: a single file, or many in order, in a thread pool."""

import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from efsgd_jax.data.dataset import Empty, in_memory
from efsgd_jax.data.extras import is_dicom, open_dicom, optional_extensions
from efsgd_jax.data.resize import crop_and_resize
from efsgd_jax.data.scale import Range, advice, describe, first_outside, to_bytes
from efsgd_jax.data.split import record_hash
from efsgd_jax.data.validate import one_line
from efsgd_jax.errors import UserError

Item = TypeVar("Item")

# Pillow's modes of grey images, and those modes that have 16 or 32 bits per pixel.
_GRAY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_DEEP_MODES = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
# Formats that Pillow lists among those it opens, but can only identify or needs another program to decode.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@functools.cache
def image_extensions() -> frozenset[str]:
    """The file name extensions, in lower case and with the dot, of the formats that can be decoded: those of the
    installed Pillow and of optional packages."""
    optional = optional_extensions()
    registered = Image.registered_extensions()  # also fills Image.OPEN
    return optional | {ext for ext, fmt in registered.items() if fmt in Image.OPEN and fmt not in _NOT_DECODED}


class Decoded(NamedTuple):
    """One decoded image.

    Attributes:
      pixels: uint8 ``[H, W, C]``.
      gray: whether the file has a grey image.
      hash: ``record_hash`` of the file's bytes, which decides about the train/test split.
    """

    pixels: np.ndarray
    gray: bool
    hash: bytes


class Images(NamedTuple):
    """Several decoded images.

    Attributes:
      pixels: uint8 ``[N, H, W, C]``.
      gray: bool ``[N]``, whether each file has a grey image.
      hashes: ``record_hash`` of each file's bytes.
    """

    pixels: np.ndarray
    gray: np.ndarray
    hashes: list[bytes]


def decode_image(
    data: bytes, where: str, image_size: int | None, channels: int, value_range: Range | None = None
) -> Decoded:
    """Decodes one image.

    EXIF orientation is applied. Transparent images are composited on white, except those with 16 or 32 bits per pixel.
    Palettes, CMYK and other colour spaces are converted to RGB, or to grey if ``channels`` is 1. 16-bit grey is scaled
    to 8 bits. The first frame of an animation is used.

    Args:
      data: the file's bytes.
      where: the file's name, for the error.
      image_size: height and width to which the image is centre-cropped and resized; None keeps its own size.
      channels: number of channels of the result, 1 or 3.
      value_range: the range of the numbers in the file whose ends become 0 and 255; None for the full range of its
        bits.

    Raises:
      UserError: the bytes are not an image, are damaged or truncated, have 32 bits per pixel without a
        ``value_range``, or have a value out of the range.
    """
    if not data:
        raise UserError(f"the image {where} is empty (0 bytes); repair or remove the file")
    try:
        with open_dicom(data, value_range is not None) if is_dicom(data) else Image.open(io.BytesIO(data)) as opened:
            opened.load()
            gray = opened.mode in _GRAY_MODES
            image = _to_8_bits(ImageOps.exif_transpose(opened), channels, value_range)
    except UnidentifiedImageError as error:
        raise UserError(f"cannot decode the image {where} (it is in no known format); repair or remove it") from error
    except _OutOfRange as error:
        raise UserError(f"the image {where} {error}") from error
    except Image.DecompressionBombError as error:
        raise UserError(
            f"the image {where} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels, too many "
            "for one image; make it smaller with another program"
        ) from error
    # On damaged bytes Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, IndexError and others.
    except Exception as error:
        raise UserError(f"cannot decode the image {where} ({one_line(error)}); repair or remove the file") from error
    array = np.asarray(image if image_size is None else crop_and_resize(image, image_size))
    return Decoded(array[..., np.newaxis] if array.ndim == 2 else array, gray, record_hash(data))


class _OutOfRange(Exception):
    """A number in an image file is outside of the declared range; the message continues "the image NAME"."""


def _to_8_bits(image: Image.Image, channels: int, value_range: Range | None) -> Image.Image:
    """Converts to 8-bit grey or RGB, with transparent images on white, and scales a declared range to 0..255."""
    if value_range is None and image.mode in ("I", "F"):
        raise ValueError(
            f"Pillow mode {image.mode}, 32 bits per pixel; save it as 8-bit gray or RGB, or set "
            "--config.data.value_range"
        )
    if image.mode in _DEEP_MODES:
        numbers = np.asarray(image)
        if value_range is None:
            pixels = (numbers.astype(np.uint16) // 257).astype(np.uint8)  # 257 = 65535 / 255
        else:
            pixels = _scaled(numbers, value_range)
        image, value_range = Image.fromarray(pixels), None  # the range has been applied
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    target = "L" if channels == 1 else "RGB"
    image = image if image.mode == target else image.convert(target)
    return image if value_range is None else Image.fromarray(_scaled(np.asarray(image), value_range))


def _scaled(numbers: np.ndarray, value_range: Range) -> np.ndarray:
    """Scales the numbers of one image from ``value_range`` to uint8 0..255."""
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise ValueError("a value is not finite")
    outside = first_outside(numbers[np.newaxis], value_range)
    if outside:
        value = outside[1]
        raise _OutOfRange(
            f"has the value {value:g}, outside of {describe(numbers.dtype, value_range)}; {advice(value)}"
        )
    return to_bytes(numbers, value_range)


def decode_all(
    items: Sequence[Item],
    read: Callable[[Item], bytes],
    name: Callable[[Item], str],
    image_size: int | None,
    channels: int,
    value_range: Range | None = None,
    empty: Empty = in_memory,
) -> Images:
    """Reads and decodes all items, in order; each image is decoded independently of the others.

    Args:
      items: the items to read, at least one.
      read: function from an item to the file's bytes; it may raise OSError or UserError, and is called from several
        threads.
      name: function from an item to the file's name, for errors.
      image_size: see ``decode_image``; if None, all images must have the same size.
      channels: number of channels of the result, 1 or 3.
      value_range: see ``decode_image``.
      empty: what allocates the array of all images.

    Raises:
      UserError: a file cannot be read or decoded, or two have different sizes and ``image_size`` is None.
    """

    def load(item: Item) -> Decoded:
        try:
            data = read(item)
        except (OSError, MemoryError) as error:
            raise UserError(f"cannot read {name(item)} ({one_line(error)})") from error
        return decode_image(data, name(item), image_size, channels, value_range)

    pixels, gray, hashes = np.empty(0, np.uint8), np.zeros(len(items), bool), []
    # Pillow warns of unusual metadata, but either reads the pixels or raises an error. The warnings are suppressed here
    # and not in the threads, which would restore the filters in any order and could suppress all later warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, (item, decoded) in enumerate(zip(items, _in_threads(load, items), strict=True)):
            if i == 0:
                pixels = empty((len(items), *decoded.pixels.shape))
            if decoded.pixels.shape != pixels.shape[1:]:
                raise UserError(
                    f"the images differ in size: {name(items[0])} is {_size(pixels[0])} and {name(item)} is "
                    f"{_size(decoded.pixels)} (width x height); set --config.data.image_size to crop and resize them "
                    "alike"
                )
            pixels[i], gray[i] = decoded.pixels, decoded.gray
            hashes.append(decoded.hash)
    return Images(pixels, gray, hashes)


def decode_parts(
    train: Sequence[Item],
    test: Sequence[Item] | None,
    read: Callable[[Item], bytes],
    name: Callable[[Item], str],
    image_size: int | None,
    channels: int,
    value_range: Range | None = None,
    empty: Empty = in_memory,
) -> tuple[Images, np.ndarray | None]:
    """``decode_all`` of the training items and, in an array of its own, of the test items.

    Returns:
      The training images, with what is known of the images of both parts; and the test images, None for None.
    """  # fmt: skip
    first = decode_all(train, read, name, image_size, channels, value_range, empty)
    if test is None:
        return first, None
    second = decode_all(test, read, name, image_size, channels, value_range, empty)
    both = Images(first.pixels, np.concatenate([first.gray, second.gray]), first.hashes + second.hashes)
    return both, second.pixels


def warn_of_conversion(gray: np.ndarray, channels: int, declared: int | None, where: str) -> None:
    """Warns if grey and colour images are mixed, or if grey images are read as RGB by default.

    Warnings depend on private data; only the owner of the data sees them.

    Args:
      gray: bool ``[N]``, whether each file has a grey image.
      channels: number of channels to which all images were converted.
      declared: number of channels that the owner declared; None if ``channels`` is the source's default.
      where: the source, for the warning.
    """
    count, total = int(gray.sum()), len(gray)
    if channels == 3 and declared is None and count == total:
        warnings.warn(
            f"{where}: all {total} images are grey and are read as RGB, which costs time and quality; set "
            "--config.data.channels=1",
            stacklevel=2,
        )
    elif 0 < count < total:
        converted, target = (count, "RGB") if channels == 3 else (total - count, "grey")
        kind = "grey" if channels == 3 else "in colour"
        warnings.warn(
            f"{where}: {converted} of {total} images are {kind} and were converted to {target}; all are read alike, as "
            "--config.data.channels says (1 for grey, 3 for RGB, the default)",
            stacklevel=2,
        )


def _in_threads(load: Callable[[Item], Decoded], items: Sequence[Item]) -> Iterator[Decoded]:
    """Yields ``load(item)`` for each item, in order."""
    workers = min(8, os.cpu_count() or 1)
    block = 64 * workers  # bounds the memory, and the number of images decoded after an error
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), block):
            yield from pool.map(load, items[start : start + block])


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
