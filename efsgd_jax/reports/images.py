"""Pictures in a page: PNG data URIs of single pixels, enlarged by the browser."""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

MAX_SCALE = 6
LARGE = 3


class Picture(NamedTuple):
    """What an ``<img>`` says: its ``source``, what it shows (``alt``, for those who do not see it), its ``width`` and
    ``height`` in CSS pixels, and whether the image's pixels become ``large``, and are shown as squares."""

    source: str
    alt: str
    width: int
    height: int
    large: bool


def picture(pixels: np.ndarray, alt: str, *, width: int) -> Picture:
    """A picture of uint8 ``[H, W, C]``, C of 1 to 4 (gray, gray and alpha, RGB, RGB and alpha).

    Args:
      pixels: one for each pixel of the image: nothing is enlarged in the file.
      alt: what it shows, for those who do not see it.
      width: CSS pixels that it may take at most. Pixels that become large are squares of a whole number of them; small
        ones fill the width, smoothly. On a screen that is narrower the picture shrinks.
    """
    scale = min(MAX_SCALE, width / pixels.shape[1])
    scale = int(scale) if scale >= LARGE else scale
    height, columns = (round(n * scale) for n in pixels.shape[:2])
    return Picture(data_uri(pixels), alt, columns, height, scale >= LARGE)


def data_uri(pixels: np.ndarray) -> str:
    """uint8 ``[H, W, C]`` as a PNG without any text in it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def strip(images: Sequence[np.ndarray] | np.ndarray, columns: int | None = None) -> np.ndarray:
    """Images uint8 ``[n, S, S, C]`` side by side, ``columns`` to a row, a transparent pixel or two between them; uint8
    ``[H, W, C + 1]``."""
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
