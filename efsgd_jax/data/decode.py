"""One encoded image -> one uint8 array, and thousands of them in order, decoded in a thread pool."""

import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from efsgd_jax.data.resize import crop_and_resize
from efsgd_jax.data.validate import one_line
from efsgd_jax.errors import UserError

Item = TypeVar("Item")

_GRAY_MODES = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"}
# Formats that Pillow lists but only identifies, or hands to another program.
_NOT_PHOTOGRAPHS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@functools.cache
def image_extensions() -> frozenset[str]:
    """Lower-case file name extensions, with the dot, that this Pillow can decode."""
    registered = Image.registered_extensions()  # also fills Image.OPEN
    return frozenset(ext for ext, fmt in registered.items() if fmt in Image.OPEN and fmt not in _NOT_PHOTOGRAPHS)


def decode_image(data: bytes, where: str, image_size: int | None, channels: int | None) -> np.ndarray:
    """Decode one image.

    EXIF orientation is applied; transparency is composited on white; palettes, CMYK and other colour spaces become
    RGB; 16-bit gray is scaled to 8 bits; of an animation the first frame counts.

    Args:
      data: the file's bytes.
      where: the file's name, for the error.
      image_size: centre-crop to a square and resize to this side; None keeps the image's own size.
      channels: 1 or 3; None keeps gray images gray and colour images RGB.

    Returns:
      uint8 ``[H, W, 1]`` or ``[H, W, 3]``.

    Raises:
      UserError: the bytes are no image, damaged, truncated, or of a depth that has no single 8-bit reading.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; the pixels are either read or an error
            with Image.open(io.BytesIO(data)) as opened:
                opened.load()
                image = _to_8_bits(ImageOps.exif_transpose(opened), channels)
    # Pillow's plugins meet damaged bytes with OSError, SyntaxError, ValueError, struct.error, IndexError and others.
    except Exception as error:
        raise UserError(f"cannot decode the image {where} ({one_line(error)}); repair or remove the file") from error
    array = np.asarray(image if image_size is None else crop_and_resize(image, image_size))
    return array[..., np.newaxis] if array.ndim == 2 else array


def _to_8_bits(image: Image.Image, channels: int | None) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"Pillow mode {image.mode}, 32 bits per pixel; save it as 8-bit gray or RGB")
    target = "L" if channels == 1 or (channels is None and image.mode in _GRAY_MODES) else "RGB"
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == target else image.convert(target)


def decode_all(
    items: Sequence[Item],
    read: Callable[[Item], bytes],
    name: Callable[[Item], str],
    image_size: int | None,
    channels: int | None,
) -> np.ndarray:
    """Read and decode every item, in order.

    Args:
      items: what to read, at least one.
      read: item -> the file's bytes; may raise OSError or a UserError of its own. Called from several threads.
      name: item -> the file's name, for errors.
      image_size: as in ``decode_image``; None demands that all images have one size.
      channels: as in ``decode_image``; None means 1 if every image is gray, else 3.

    Returns:
      uint8 ``[N, H, W, C]``.

    Raises:
      UserError: a file cannot be read or decoded, or two have different sizes and ``image_size`` is None.
    """

    def load(item: Item) -> np.ndarray:
        try:
            data = read(item)
        except (OSError, MemoryError) as error:
            raise UserError(f"cannot read {name(item)} ({one_line(error)})") from error
        return decode_image(data, name(item), image_size, channels)

    arrays: list[np.ndarray] = []
    for item, array in zip(items, _in_threads(load, items), strict=True):
        if arrays and array.shape[:2] != arrays[0].shape[:2]:
            raise UserError(
                f"the images differ in size: {name(items[0])} is {_size(arrays[0])} and {name(item)} is {_size(array)} "
                "(width x height); set --config.data.image_size to crop and resize them alike"
            )
        arrays.append(array)
    depth = max(array.shape[2] for array in arrays)
    result = np.empty((len(arrays), *arrays[0].shape[:2], depth), np.uint8)
    for i, array in enumerate(arrays):
        result[i] = array  # a gray image broadcasts over R, G and B
    return result


def _in_threads(load: Callable[[Item], np.ndarray], items: Sequence[Item]) -> Iterator[np.ndarray]:
    workers = min(8, os.cpu_count() or 1)
    block = 64 * workers  # bounds what is in flight, and how much is decoded in vain before an error is seen
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), block):
            yield from pool.map(load, items[start : start + block])


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
