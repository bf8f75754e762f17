"""Pictures in a page: PNG data URIs with one pixel for each pixel of an image, which the browser enlarges."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

# Largest factor by which the browser enlarges an image, and the factor from which pixels are shown as squares.
MAX_SCALE = 6
LARGE = 3


class Picture(NamedTuple):
    """The attributes of an ``<img>`` element.

    Attributes:
      source: data URI of the PNG.
      alt: alternative text.
      width: width in CSS pixels.
      height: height in CSS pixels.
      large: whether the image is so much enlarged that its pixels are shown as squares, without smoothing.
    """

    source: str
    alt: str
    width: int
    height: int
    large: bool


def picture(pixels: np.ndarray, alt: str, *, width: int) -> Picture:
    """Makes a picture of an image.

    Args:
      pixels: the image, uint8 ``[H, W, C]`` with C from 1 to 4 (gray, gray and alpha, RGB, RGB and alpha). The file has
        the same pixels; it is enlarged by the browser only.
      alt: alternative text.
      width: largest width of the picture in CSS pixels. The image is scaled to it, but by at most ``MAX_SCALE``. If the
        scale is ``LARGE`` or more, it is rounded down to a whole number, and pixels are shown as squares. On narrower
        screens the picture shrinks.
    """
    scale = min(MAX_SCALE, width / pixels.shape[1])
    scale = int(scale) if scale >= LARGE else scale
    height, columns = (round(n * scale) for n in pixels.shape[:2])
    return Picture(data_uri(pixels), alt, columns, height, scale >= LARGE)


def data_uri(pixels: np.ndarray) -> str:
    """Encodes an image, uint8 ``[H, W, C]``, as the data URI of a PNG without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip(images: Sequence[np.ndarray] | np.ndarray, columns: int | None = None) -> np.ndarray:
    """Arranges images uint8 ``[n, S, S, C]`` in rows with transparent gaps between them; uint8 ``[H, W, C + 1]``.

    A row has ``columns`` images; None for all images in one row. The last channel is alpha.
    """
    images = np.asarray(images)
    n, size, _, channels = images.shape
    columns = columns or n
    gap = max(1, size // 16)
    rows = -(-n // columns)
    canvas = np.zeros((rows * (size + gap) - gap, columns * (size + gap) - gap, channels + 1), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (size + gap), i % columns * (size + gap)
        canvas[top : top + size, left : left + size, :channels] = image
        canvas[top : top + size, left : left + size, channels] = 255
    return canvas
