"""Records that have tempted readers to read others by them: encoded images, and rows of arrays with a label."""

import struct
import zlib
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from malformed import BIG, FIRST, PNG, encode, flip, gray_of, palette_with_alpha, upside_down
from PIL import Image

RNG = np.random.default_rng(1)
SIDE = 8


class File(NamedTuple):
    """One image file.

    Attributes:
      kind: what is odd.
      data: its bytes.
      name: below its class folder.
      label: the class folder.
    """

    kind: str
    data: bytes
    name: str = "5a.png"
    label: str = "a"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix


class Row(NamedTuple):
    """One row of an array.

    Attributes:
      kind: what is odd.
      image: ``[SIDE, SIDE]``, of the type that it is added as.
      label: of the three classes, or another number.
      at: where it is put in; -1 for the end.
    """

    kind: str
    image: np.ndarray
    label: int = 0
    at: int = -1


def noise(mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    depth = () if mode == "L" else (len(mode),)
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], *depth), dtype=np.uint8))


def files(n: int) -> list[bytes]:
    """Ordinary ones, none like another."""
    return [encode(noise()) for _ in range(n)]


def with_gamma() -> bytes:
    chunk = b"gAMA" + struct.pack(">I", 100_000)
    return PNG[:33] + struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + PNG[33:]


def rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(noise(size=(12, 8)), "JPEG", exif=exif)


def deep(top: int) -> bytes:
    return encode(Image.fromarray(RNG.integers(0, top + 1, (SIDE, SIDE), dtype=np.uint16)))


DUPLICATE, *ORDINARY = files(24)
FILES = [
    File("ordinary", encode(noise())),
    File("grey", encode(noise("L"))),
    File("grey with alpha", encode(gray_of("LA", (7, 100)))),
    File("alpha", encode(noise("RGBA"))),
    File("transparent", encode(gray_of("RGBA", (9, 9, 9, 0)))),
    File("palette", encode(noise().quantize(16))),
    File("palette with alpha", palette_with_alpha()),
    File("one bit", encode(gray_of("1", 1))),
    File("16 bits", deep(65535)),
    File("12 bits in 16", deep(4095)),
    File("16 bits, black", deep(0)),
    File("32-bit integers", encode(gray_of("I", 70000), "TIFF"), "5a.tiff"),
    File("floats", encode(gray_of("F", 0.5), "TIFF"), "5a.tiff"),
    File("CMYK", encode(gray_of("CMYK", (255, 0, 0, 0)), "TIFF"), "5a.tiff"),
    File("CMYK JPEG", encode(gray_of("CMYK", (200, 3, 9, 40)), "JPEG"), "5a.jpg"),
    File("YCbCr", encode(gray_of("YCbCr", (255, 128, 128)), "TIFF"), "5a.tiff"),
    File("Lab", encode(gray_of("LAB", (200, 12, 128)), "TIFF"), "5a.tiff"),
    File("JPEG", encode(noise(), "JPEG"), "5a.jpeg"),
    File("WebP", encode(noise(), "WEBP"), "5a.webp"),
    File("BMP", encode(noise(), "BMP"), "5a.bmp"),
    File("animated", encode(gray_of("L", 10), **FIRST), "5a.gif"),
    File("upside down by EXIF", upside_down()),
    File("rotated by EXIF", rotated(6), "5a.jpg"),
    File("mirrored by EXIF", rotated(2), "5a.jpg"),
    File("a gamma", with_gamma()),
    File("black", encode(gray_of("RGB", (0, 0, 0)))),
    File("white", encode(gray_of("RGB", (255, 255, 255)))),
    File("only 0 and 1", encode(Image.fromarray(RNG.integers(0, 2, (SIDE, SIDE), dtype=np.uint8)))),
    File("only 0 to 16", encode(Image.fromarray(RNG.integers(0, 17, (SIDE, SIDE, 3), dtype=np.uint8)))),
    File("one pixel", encode(noise(size=(1, 1)))),
    File("one row", encode(noise(size=(40, 1)))),
    File("large", BIG),
    File("larger by one", encode(noise(size=(SIDE + 1, SIDE + 1)))),
    File("the bytes of another", DUPLICATE),
    File("the bytes of another, in another class", DUPLICATE, label="b"),
    File("the first of its class", encode(noise()), label="c"),
    File("sorted first", encode(noise()), "!.png"),
    File("sorted last", encode(noise()), "~.png"),
    File("in a folder of its own", encode(noise()), "deep/er/0.png"),
    File("in a folder named train", encode(noise()), "train/0.png"),
    File("name in Greek", encode(noise()), "εικόνα.png"),
    File("name with a combining mark", encode(noise()), "e\u0301.png"),
    File("name from right to left", encode(noise()), "\u05ea\u05de\u05d5\u05e0\u05d4.png"),
    File("name with an emoji", encode(noise()), "\U0001f600.png"),
    File("name with a line break", encode(noise()), "a\nb.png"),
    File("name in capitals", encode(noise()), "5A.PNG"),
    File("wrong extension", encode(noise()), "5a.jpg"),
    File("no image's extension", encode(noise()), "5a.txt"),
    File("hidden", encode(noise()), ".5a.png"),
    File("zero bytes", b""),
    File("text", b"not an image"),
    File("truncated", PNG[: len(PNG) // 2]),
    File("one bit flipped", flip(PNG, 60)),
]

ROWS = np.random.default_rng(2).integers(0, 256, (24, SIDE, SIDE), dtype=np.uint8)
ROWS[:, 0, 0] = 255  # every ordinary image has the whole range


def row(value: float, dtype: str = "uint8") -> np.ndarray:
    return np.full((SIDE, SIDE), value, dtype)


def pixel(value: float, dtype: str = "float64") -> np.ndarray:
    image = np.full((SIDE, SIDE), 0.5, dtype)
    image[2, 3] = value
    return image


ARRAY_ROWS = [
    Row("ordinary", RNG.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)),
    Row("at the beginning", RNG.integers(0, 256, (SIDE, SIDE), dtype=np.uint8), at=0),
    Row("in the middle", RNG.integers(0, 256, (SIDE, SIDE), dtype=np.uint8), at=11),
    Row("black", row(0)),
    Row("white", row(255)),
    Row("only 1", row(1)),
    Row("only 16", row(16)),
    Row("another one again", ROWS[3]),
    Row("another one again, of another class", ROWS[3], 1),
    Row("the first of its class", row(7), 2),
    Row("an unknown class", row(7), 3),
    Row("a negative class", row(7), -1),
]
# Added to an array they change its type, or are out of its range.
WIDER_ROWS = [
    Row("signed", row(-1, "int8")),
    Row("16 bits", row(300, "uint16")),
    Row("64 bits", row(200, "int64"), at=0),
    Row("floats", row(0.5, "float32")),
    Row("whole floats", row(200, "float64"), at=5),
    Row("one pixel of 2", pixel(2.0)),
    Row("one pixel of 255", pixel(255.0)),
    Row("one pixel of -1", pixel(-1.0)),
    Row("one pixel of 1e-30", pixel(1e-30)),
    Row("one pixel of 1e30", pixel(1e30)),
    Row("one pixel without a number", pixel(np.nan)),
    Row("one pixel of infinity", pixel(np.inf)),
    Row("half precision", pixel(0.25, "float16")),
]
