"""Scaling of numbers of any type to uint8 0..255, by a declared range or that of their type.

The range never depends on the values of the images, which are private.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from efsgd_jax.errors import UserError

BYTES, UNIT = (0.0, 255.0), (0.0, 1.0)
# If no integer is above this value, a warning says that images look nearly black on the scale of 0..255.
DARK = 16
# Number of records that are converted at a time.
BLOCK = 1024

# The values that become 0 and 255.
Range = tuple[float, float]


def range_of(dtype: np.dtype, declared: Range | None) -> Range:
    """The range whose ends become 0 and 255: the declared one, or 0..255 for integers and 0..1 for floats."""
    if declared is not None:
        return declared
    return UNIT if dtype.kind == "f" else BYTES


def to_bytes(values: np.ndarray, declared: Range | None) -> np.ndarray:
    """Scales values that are within their range linearly to uint8, rounded; each number independently of the others."""
    low, high = range_of(values.dtype, declared)
    if (low, high) == BYTES and values.dtype.kind != "f":
        return values.astype(np.uint8, copy=False)
    result = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), BLOCK):  # float64 of all of them would be eight times the memory
        block = values[start : start + BLOCK].astype(np.float64)
        result[start : start + BLOCK] = np.rint((block - low) * (255.0 / (high - low)))
    return result


def first_outside(values: np.ndarray, declared: Range | None) -> tuple[int, float] | None:
    """The index of the first record with a value outside of the range, and that value; None if there is none."""
    low, high = range_of(values.dtype, declared)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        bad = (block < low) | (block > high)
        if bad.any():
            row = int(bad.reshape(len(block), -1).any(axis=1).argmax())
            return start + row, float(block[row][bad[row]][0])
    return None


def describe(dtype: np.dtype, declared: Range | None) -> str:
    """The range and its origin in words, for an error, such as "0..1, the range of floats"."""
    low, high = range_of(dtype, declared)
    why = (
        "the declared range"
        if declared is not None
        else f"the range of {'floats' if dtype.kind == 'f' else 'integers'}"
    )
    return f"{low:g}..{high:g}, {why}"


def advice(value: float) -> str:
    """Advice for the owner of the data in an error: the range to declare if ``value`` is a possible value."""
    if value < 0:
        wider = "-1..1" if value >= -1 else f"{value:g}..{-value:g}"
    else:
        wider = next((f"0..{top}" for top in (1, 255, 65535) if value <= top), f"0..{value:g}")
    return (
        f"repair that image, or set --config.data.value_range={wider} if that is the range which the values of all "
        "images can have"
    )


def refuse_outside(parts: Sequence[np.ndarray], names: Sequence[str], where: str, declared: Range | None) -> None:
    """Raises ``UserError`` for the first value outside of the range, with the image's index and advice.

    Args:
      parts: the images of the training part, and of the test part if there is one.
      names: names of the parts, for the error.
      where: the source, for the error.
      declared: the declared range; None for that of the parts' type.
    """
    for part, name in zip(parts, names, strict=True):
        outside = first_outside(part, declared)
        if outside:
            index, value = outside
            raise UserError(
                f"{where}: the {name} ({part.dtype}) contain the value {value:g} in image {index}, outside of "
                f"{describe(part.dtype, declared)}; {advice(value)}"
            )


def warn_if_dark(parts: Sequence[np.ndarray], where: str, declared: Range | None) -> None:
    """Warns if integers are probably on another scale than 0..255; only the owner of the data sees warnings."""
    if declared is not None or any(part.dtype.kind == "f" for part in parts):
        return
    largest = max(int(part.max()) for part in parts)
    if largest <= DARK:
        likely = "0..1" if largest <= 1 else "0..16"
        warnings.warn(
            f"{where}: no value is above {largest} where 255 is white, so that all images look nearly black; if that "
            f"is not what they are, set --config.data.value_range={likely}",
            stacklevel=2,
        )
