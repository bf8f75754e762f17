"""Centre-cropping to a square and resizing with antialiasing, for Pillow images and arrays; grey and RGB conversion."""

import numpy as np
from PIL import Image

RESAMPLING = Image.Resampling.BICUBIC


def crop_and_resize(image: Image.Image, size: int) -> Image.Image:
    """Crops to the largest centred square and resizes it to ``size`` x ``size``; Pillow's filter antialiases."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if (width, height) != (side, side):
        image = image.crop((left, top, left + side, top + side))
    return image if side == size else image.resize((size, size), RESAMPLING)


def resize_square(images: np.ndarray, size: int) -> np.ndarray:
    """Crops and resizes uint8 ``[N, H, W, C]`` to ``[N, size, size, C]``; the same array if it has that size."""
    if images.shape[1:3] == (size, size):
        return images
    result = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for i, image in enumerate(images):
        pillow = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        result[i] = np.asarray(crop_and_resize(pillow, size)).reshape(result.shape[1:])
    return result


def convert_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Converts uint8 ``[N, S, S, 1 or 3]`` to ``[N, S, S, channels]``; None keeps the number of channels.

    Grey values are repeated for R, G and B. Colours become luma by ITU-R 601 with Pillow's integer weights.
    """
    if channels is None or images.shape[3] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=3)
    result = np.empty((*images.shape[:3], 1), np.uint8)
    for i, image in enumerate(images):
        result[i, ..., 0] = np.asarray(Image.fromarray(image).convert("L"))
    return result
