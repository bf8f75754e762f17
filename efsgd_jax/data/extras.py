"""Image formats that need an optional package: HEIC, of phones, and DICOM, of medical devices."""

import functools
import importlib.util
import io
from typing import Any

import numpy as np
from PIL import Image

HEIC, DICOM = (".heic", ".heif"), (".dcm", ".dicom")
# What a warning adds about a file that was skipped.
MISSING_EXTRA = {
    **dict.fromkeys(HEIC, " (pip install 'efsgd_jax[heic]' reads them)"),
    **dict.fromkeys(DICOM, " (pip install 'efsgd_jax[dicom]' reads them)"),
}


@functools.cache
def optional_extensions() -> frozenset[str]:
    """The file name extensions of the optional formats whose packages are installed; makes Pillow read HEIC."""
    found: tuple[str, ...] = ()
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
        found += HEIC
    if importlib.util.find_spec("pydicom"):
        found += DICOM
    return frozenset(found)


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file: 128 bytes of any content, then the four letters DICM."""
    return data[128:132] == b"DICM"


def open_dicom(data: bytes, scaled: bool) -> Image.Image:
    """The picture of a DICOM file, as a Pillow image: grey of 8 bits or of 32-bit floats, or RGB.

    Args:
      data: the file's bytes.
      scaled: whether a range of values was declared. If so, the result has the stored values after the file's own
        rescaling, such as Hounsfield units. If not, unsigned values are scaled by the number of bits that the file says
        to be stored.

    Raises:
      ValueError: pydicom is not installed, there are several frames, the values are signed without a declared range, a
        range is declared and large values are black, or the file is in a colour space other than RGB.

    Other exceptions of ``pydicom`` are for damaged files and compressions that need a further package.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ValueError("a DICOM file; pip install 'efsgd_jax[dicom]' reads them") from error
    record: Any = pydicom.dcmread(io.BytesIO(data))
    pixels = np.asarray(record.pixel_array)
    kind = str(record.PhotometricInterpretation)
    if kind == "RGB" and pixels.ndim == 3 and record.BitsStored == 8:
        return Image.fromarray(pixels)
    if pixels.ndim != 2 or not kind.startswith("MONOCHROME"):
        raise ValueError(f"DICOM {kind} of shape {pixels.shape}; a single grey or RGB frame of 8 bits is needed")
    if scaled and kind == "MONOCHROME1":
        raise ValueError("DICOM MONOCHROME1, whose largest values are black; leave --config.data.value_range out")
    if scaled:
        slope, intercept = float(record.get("RescaleSlope", 1)), float(record.get("RescaleIntercept", 0))
        return Image.fromarray((pixels * slope + intercept).astype(np.float32))
    if record.PixelRepresentation:
        raise ValueError("DICOM with signed values; set --config.data.value_range, such as -1000..400")
    shades = np.rint(np.minimum(pixels / (2**record.BitsStored - 1), 1) * 255).astype(np.uint8)
    return Image.fromarray(255 - shades if kind == "MONOCHROME1" else shades)
