"""A corpus of images and archives that no reader expects; each is made in a directory of its own.

A case is read to the images that ``expected`` gives, or refused in one line that names ``blamed``.
"""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 8, 8), dtype=np.uint8)
LABELS = np.arange(12) % 2
COLOUR = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)


class Case(NamedTuple):
    """``make(directory)`` gives the arguments of ``load_dataset``; then either ``blamed`` or ``expected``.

    Attributes:
      kind: what is odd.
      source: of ``load_dataset``.
      make: writes it and returns its path.
      blamed: what the refusal must name; empty if it is to be read.
      expected: uint8 image ``[S, S, C]`` that must be among those that are read.
      options: of ``load_dataset``.
    """

    kind: str
    source: str
    make: Callable[[Path], Path]
    blamed: str = ""
    expected: np.ndarray | None = None
    options: Mapping[str, Any] = MappingProxyType({})


def encode(image: Image.Image, fmt: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, fmt, **options)
    return data.getvalue()


PNG = encode(Image.fromarray(COLOUR))
OTHERS = [encode(Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))) for _ in range(15)]
PAIRS = dict(zip([(label, i) for label in "ab" for i in range(8)], [PNG, *OTHERS], strict=True))
FIRST = {"fmt": "GIF", "save_all": True, "append_images": [Image.new("L", (8, 8), 200)]}


def pictures(name: str, data: bytes, odd_class: str = "b") -> Callable[[Path], Path]:
    """Two class folders of eight PNGs, and ``data`` as ``name`` in one of them."""

    def make(root: Path) -> Path:
        for (label, i), png in PAIRS.items():
            folder = root / (label if label == "a" else odd_class)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.png").write_bytes(png)
        (root / odd_class / name).write_bytes(data)
        return root

    return make


def archive(*extra: tuple[str, bytes], **options: Any) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        file = root / "pictures.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
            for (label, i), png in PAIRS.items():
                target.writestr(f"{label}/{i}.png", png)
            for name, data in extra:
                target.writestr(name, data)
        if "damage" in options:
            file.write_bytes(options["damage"](file.read_bytes()))
        return file

    return make


def arrays(**changes: Any) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        given = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:4], "y_test": LABELS[:4]}
        given |= {"class_names": np.array(["a", "b"]), **changes}
        np.savez(root / "data.npz", **{k: v for k, v in given.items() if v is not None})
        return root / "data.npz"

    return make


def npz_of(**members: bytes) -> Callable[[Path], Path]:
    """An archive of raw members in place of arrays."""

    def make(root: Path) -> Path:
        arrays()(root)
        with zipfile.ZipFile(root / "data.npz") as old:
            kept = {n: old.read(n) for n in old.namelist()}
        with zipfile.ZipFile(root / "data.npz", "w", zipfile.ZIP_DEFLATED) as new:
            for name, data in {**kept, **{f"{k}.npy": v for k, v in members.items()}}.items():
                new.writestr(name, data)
        return root / "data.npz"

    return make


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def npz_bomb(root: Path) -> Path:
    """An array of three gibibytes of zeros, in three mebibytes."""
    with zipfile.ZipFile(root / "data.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        with target.open("x_train.npy", "w", force_zip64=True) as stream:
            stream.write(npy_header((3 * 2**20, 32, 32)))
            for _ in range(192):
                stream.write(bytes(2**24))
        target.writestr("y_train.npy", npy_header((3 * 2**20,)) + bytes(3 * 2**20))
    return root / "data.npz"


def zip_bomb(root: Path) -> Path:
    file = archive()(root)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as target, target.open("b/8.png", "w") as s:
        for _ in range(20):
            s.write(bytes(2**24))
    return file


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("pickle_was_run",))


def idx(**changes: bytes) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for part, n in (("train", 12), ("t10k", 4)):
            files = {
                f"{part}-images-idx3-ubyte": idx_header(8, n, 8, 8) + IMAGES[:n].tobytes(),
                f"{part}-labels-idx1-ubyte": idx_header(8, n) + LABELS[:n].astype(np.uint8).tobytes(),
            }
            for name, data in files.items():
                (root / name).write_bytes(data)
        for name, data in changes.items():
            plain = name.replace("_", "-")
            (root / plain).unlink(missing_ok=True)
            suffix = ".gz" if data[:2] == b"\x1f\x8b" else ""
            (root / f"{plain}{suffix}").write_bytes(data)
        return root

    return make


def celeba(partition: str = "", attributes: str = "", face: bytes | None = None) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        (root / "img_align_celeba").mkdir()
        lines, parts = [], []
        for i in range(1, 9):
            (root / "img_align_celeba" / f"{i}.jpg").write_bytes(PNG)
            lines.append(f"{i}.jpg {1 if i % 2 else -1}")
            parts.append(f"{i}.jpg {0 if i < 6 else 2}")
        if face is not None:
            (root / "img_align_celeba/3.jpg").write_bytes(face)
        (root / "list_attr_celeba.txt").write_text(attributes or "8\nMale\n" + "\n".join(lines) + "\n")
        (root / "list_eval_partition.txt").write_text(partition or "\n".join(parts) + "\n")
        return root

    return make


def binary_list(root: Path) -> Path:
    celeba()(root)
    (root / "list_attr_celeba.txt").write_bytes(b"\xff\xfe\x00")
    return root


def prepared(
    damage: Callable[[bytes], bytes] = lambda data: data,
    image: Callable[[int], bytes] = lambda i: encode(Image.fromarray(IMAGES[i])),
    splits: tuple[str, ...] = ("train", "test"),
    label: Callable[[int], int] = lambda i: i % 2,
    train_size: int = 12,
) -> Callable[[Path], Path]:
    """A set of TensorFlow Datasets, prepared as array_record, of the name ``toy``; made without TensorFlow."""

    def make(root: Path) -> Path:
        import tensorflow_datasets as tfds
        from array_record.python.array_record_module import ArrayRecordWriter
        from tensorflow_datasets.proto import tf_example_pb2

        folder = root / "toy" / "1.0.0"
        folder.mkdir(parents=True)
        features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(names=["a", "b"])}
        tfds.features.FeaturesDict(features).save_config(folder)
        listed = []
        for split in splits:
            n = train_size if split == "train" else 4
            file = folder / f"toy-{split}.array_record-00000-of-00001"
            writer = ArrayRecordWriter(str(file), "group_size:1")
            for i in range(n):
                example = tf_example_pb2.Example()
                example.features.feature["image"].bytes_list.value.append(image(i))
                example.features.feature["label"].int64_list.value.append(label(i))
                writer.write(example.SerializeToString())
            writer.close()
            file.write_bytes(damage(file.read_bytes()))
            template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
            listed.append({"name": split, "shardLengths": [str(n)], "numBytes": "1", "filepathTemplate": template})
        info = {"name": "toy", "version": "1.0.0", "fileFormat": "array_record", "moduleName": "toy", "splits": listed}
        (folder / "dataset_info.json").write_text(json.dumps(info))
        return root

    return make


def linked(target: str, name: str) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        pictures("8.png", PNG)(root)
        (root / name).symlink_to(root / target)
        return root

    return make


def hard_linked(root: Path) -> Path:
    pictures("8.png", OTHERS[0])(root)
    (root / "b/x.png").hardlink_to(root / "a/3.png")
    return root


def with_two(images: np.ndarray) -> np.ndarray:
    images[3, 2, 2] = 2.0
    return images


def header_of_a_huge_png() -> bytes:
    size = struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + size
    return PNG[:8] + struct.pack(">I", len(size)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + PNG[33:]


def gray_of(mode: str, value: Any) -> Image.Image:
    return Image.new(mode, (8, 8), value)


def filled(*channels: int) -> np.ndarray:
    return np.broadcast_to(np.array(channels, np.uint8), (8, 8, len(channels)))


def palette_with_alpha() -> bytes:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    return encode(image, transparency=0)


def upside_down() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 3
    return encode(Image.fromarray(COLOUR), exif=exif)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def as_if_encrypted(data: bytes) -> bytes:
    """With the flag set in every entry of the central directory."""
    entry = b"PK\x01\x02\x14\x03\x14\x00"
    return data.replace(entry + b"\x00", entry + b"\x01")


def idx_header(kind: int, *shape: int) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, kind, len(shape), *shape)


def mojibake(root: Path) -> Path:
    pictures("8.png", PNG)(root)
    (root / "b").rename(os.fsdecode(os.fsencode(root) + b"/\xff\xfe"))
    return root


def many(n: int) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        pictures("8.png", PNG)(root)
        for label in ("train/a", "train/b", "test/a"):
            (root / "s" / label).mkdir(parents=True)
            for i in range(n):
                (root / "s" / label / f"{i}.png").write_bytes(PNG)
        (root / "s/test/c").mkdir()
        (root / "s/test/c/0.png").write_bytes(PNG)
        return root / "s"

    return make


def file_of(name: str, data: bytes) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        (root / name).write_bytes(data)
        return root / name

    return make


def empty_folder(root: Path) -> Path:
    (root / "nothing").mkdir()
    return root / "nothing"


WHITE, NEAR_WHITE, CYAN = filled(255, 255, 255), filled(254, 255, 254), filled(0, 255, 255)
BIG = encode(Image.fromarray(RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)))
TWO = {"classes": "2"}
GZIPPED = gzip.compress(idx_header(8, 12, 8, 8) + IMAGES.tobytes())

RGB = RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
CHANNELS_FIRST = {"x_train": RGB.transpose(0, 3, 1, 2) / 255.0, "x_test": RGB[:4].transpose(0, 3, 1, 2)}
IMAGE_CASES = [
    Case("16-bit gray", "folder", pictures("8.png", encode(gray_of("I;16", 65535))), expected=WHITE),
    Case("32-bit integers", "folder", pictures("8.tiff", encode(gray_of("I", 70000), "TIFF")), "b/8.tiff"),
    Case("32-bit floats", "folder", pictures("8.tiff", encode(gray_of("F", 0.5), "TIFF")), "b/8.tiff"),
    Case("CMYK", "folder", pictures("8.tiff", encode(gray_of("CMYK", (255, 0, 0, 0)), "TIFF")), expected=CYAN),
    Case("palette with alpha", "folder", pictures("8.png", palette_with_alpha()), expected=WHITE),
    Case("transparent", "folder", pictures("8.png", encode(gray_of("RGBA", (9, 9, 9, 0)))), expected=WHITE),
    Case("gray with alpha", "folder", pictures("8.png", encode(gray_of("LA", (7, 255)))), expected=filled(7, 7, 7)),
    Case("one bit", "folder", pictures("8.png", encode(gray_of("1", 1))), expected=WHITE),
    Case("YCbCr", "folder", pictures("8.tiff", encode(gray_of("YCbCr", (255, 128, 128)), "TIFF")), expected=WHITE),
    Case("Lab", "folder", pictures("8.tiff", encode(gray_of("LAB", (255, 128, 128)), "TIFF")), expected=NEAR_WHITE),
    Case("animated", "folder", pictures("8.gif", encode(gray_of("L", 10), **FIRST)), expected=filled(10, 10, 10)),
    Case("EXIF orientation", "folder", pictures("8.png", upside_down()), expected=COLOUR[::-1, ::-1]),
    Case("wrong extension", "folder", pictures("8.jpg", encode(Image.fromarray(255 - COLOUR))), expected=255 - COLOUR),
    Case("truncated PNG", "folder", pictures("8.png", PNG[: len(PNG) // 2]), "b/8.png"),
    Case("truncated JPEG", "folder", pictures("8.jpg", encode(Image.fromarray(COLOUR), "JPEG")[:-200]), "b/8.jpg"),
    Case("one bit flipped", "folder", pictures("8.png", flip(PNG, 60)), "b/8.png"),
    Case("zero bytes", "folder", pictures("8.png", b""), "b/8.png is empty"),
    Case("text as image", "folder", pictures("8.png", b"not an image"), "b/8.png (it is in no known format)"),
    Case("SVG as image", "folder", pictures("8.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "b/8.png"),
    Case("huge header", "folder", pictures("8.png", header_of_a_huge_png()), "more than 178 million pixels"),
    Case("another size", "folder", pictures("8.png", BIG), "b/8.png"),
    Case("not square", "folder", pictures("8.png", BIG), expected=COLOUR, options={"image_size": 8}),
    Case("one pixel", "folder", pictures("8.png", encode(gray_of("L", 5).crop((0, 0, 1, 1)))), "b/8.png"),
]  # fmt: skip
FOLDER_CASES = [
    Case("class of one image in test only", "folder", many(3), expected=COLOUR),
    Case("class that was not declared", "folder", many(3), "'c'", options={"classes": "a,b"}),
    Case("another number of classes", "folder", many(3), "3 classes", options={"classes": "2"}),
    Case("hard link", "folder", hard_linked, "again, by a link"),
    Case("soft link to an image", "folder", linked("a/0.png", "b/x.png"), "again, by a link"),
    Case("one class", "folder", lambda root: pictures("8.png", PNG)(root / "x") / "a", "lies in no class folder"),
    Case("empty directory", "folder", empty_folder, "nothing"),
    Case("no such path", "folder", lambda root: root / "absent", "absent"),
    Case("a file for a directory", "folder", file_of("x.zip", b"rubbish"), "x.zip"),
    Case("name is not UTF-8", "folder", mojibake, "UTF-8"),
    Case("name with a line break", "folder", pictures("8.png", b"", "b\nc"), "c/8.png"),
    Case("hidden files", "folder", pictures(".8.png", b"rubbish"), expected=COLOUR),
    Case("other files", "folder", pictures("notes.txt", b"words"), expected=COLOUR),
    Case("link loop", "folder", linked("b", "b/again"), "b/again"),
    Case("link to itself", "folder", linked("b/x.png", "b/x.png"), "b/x.png"),
    Case("link to nothing", "folder", linked("absent.png", "b/x.png"), "b/x.png"),
    Case("class twice by a link", "folder", linked("a", "c"), "again, by a link"),
]
ZIP_CASES = [
    Case("a plain zip", "folder", archive(), expected=COLOUR),
    Case("zip with ../", "folder", archive(("../b/8.png", PNG)), "../b/8.png"),
    Case("zip with an absolute name", "folder", archive(("/etc/b/8.png", PNG)), "/etc/b/8.png"),
    Case("zip with ..\\", "folder", archive(("..\\b\\8.png", PNG)), "..\\"),
    Case("zip bomb", "folder", zip_bomb, "b/8.png"),
    Case("duplicate names", "folder", archive(("b/7.png", PNG)), "b/7.png"),
    Case("truncated zip", "folder", archive(damage=lambda z: z[:-80]), "pictures.zip"),
    Case("damaged member", "folder", archive(damage=lambda z: flip(z, 60)), "a/0.png"),
    Case("encrypted flag", "folder", archive(damage=as_if_encrypted), "a/0.png"),
    Case("zip in a zip", "folder", archive(("b/more.zip", b"PK")), expected=COLOUR),
    Case("zip with a bad image", "folder", archive(("b/8.png", b"rubbish")), "b/8.png"),
    Case("empty zip", "folder", file_of("empty.zip", b"PK\x05\x06" + bytes(18)), "empty.zip"),
]  # fmt: skip
NPZ_CASES = [
    Case("zero bytes", "npz", file_of("data.npz", b""), "data.npz"),
    Case("text", "npz", file_of("data.npz", b"rubbish"), "data.npz"),
    Case("a pickle", "npz", file_of("data.npz", pickle.dumps(Evil())), "data.npz"),
    Case("a single array", "npz", lambda r: np.save(r / "a.npy", IMAGES) or r / "a.npy", "a.npy"),
    Case("object array", "npz", arrays(x_train=np.array([Evil()] * 12)), "x_train"),
    Case("pickled labels", "npz", arrays(y_train=np.array([Evil()] * 12)), "y_train"),
    Case("header beyond its data", "npz", npz_of(x_train=npy_header((12, 8, 8)) + bytes(50)), "x_train"),
    Case("header of petabytes", "npz", npz_of(x_train=npy_header((2**40, 64, 64))), "x_train"),
    Case("header with code", "npz", npz_of(x_train=npy_header((12, 8, 8)).replace(b"False", b"f()()")), "x_train"),
    Case("not an array inside", "npz", npz_of(x_train=b"rubbish"), "data.npz"),
    Case("bomb", "npz", npz_bomb, "x_train"),
    Case("labels as text", "npz", arrays(y_train=np.array(["b", "a"] * 6)), expected=IMAGES[0][..., None]),
    Case("labels of another text", "npz", arrays(y_train=np.array(["a", "c"] * 6)), "'c' at index 1"),
    Case("labels as bytes", "npz", arrays(y_train=np.array([b"a", b"b"] * 6)), "data.npz"),
    Case("labels as whole floats", "npz", arrays(y_train=LABELS.astype(float)), expected=IMAGES[0][..., None]),
    Case("labels as halves", "npz", arrays(y_train=LABELS + 0.5), "data.npz"),
    Case("labels not finite", "npz", arrays(y_train=np.where(LABELS, np.nan, 0)), "data.npz"),
    Case("labels beyond 32 bits", "npz", arrays(y_train=LABELS.astype(np.int64) * 2**40), "data.npz"),
    Case("one-hot labels", "npz", arrays(y_train=np.eye(2)[LABELS]), "data.npz"),
    Case("class that was not declared, in test", "npz", arrays(y_test=np.array([0, 1, 2, 0])), "outside the 2"),
    Case("no classes declared", "npz", arrays(class_names=None), "--config.data.classes=2,"),
    Case("class names as numbers", "npz", arrays(class_names=np.arange(2)), "class_names"),
    Case("floats of 0..255", "npz", arrays(x_train=IMAGES / 1.0), "--config.data.value_range=0..255"),
    Case("one pixel of 2", "npz", arrays(x_train=with_two(IMAGES / 255.0)), "the value 2 in image 3"),
    Case("out of the declared range", "npz", arrays(), "image 0", options={"value_range": "0..16"}),
    Case("labels far below zero", "npz", arrays(y_train=LABELS - 2**32), "data.npz"),
    Case("NaN pixel", "npz", arrays(x_train=np.full((12, 8, 8), np.nan)), "data.npz"),
    Case("complex pixels", "npz", arrays(x_train=IMAGES.astype(complex)), "data.npz"),
    Case("dates as pixels", "npz", arrays(x_train=IMAGES.astype("datetime64[s]")), "data.npz"),
    Case("records as pixels", "npz", arrays(x_train=np.zeros((12, 8, 8), [("r", "u1")])), "data.npz"),
    Case("pixels of 16 bits", "npz", arrays(x_train=IMAGES.astype(np.uint16) * 257), "data.npz"),
    Case("negative pixels", "npz", arrays(x_train=IMAGES.astype(np.int16) - 128), "data.npz"),
    Case("big-endian pixels", "npz", arrays(x_train=IMAGES.astype(">i4")), expected=IMAGES[0][..., None]),
    Case("channels first", "npz", arrays(**CHANNELS_FIRST), expected=RGB[0]),
    Case("four channels", "npz", arrays(x_train=np.zeros((12, 8, 8, 4), np.uint8)), "4 channels"),
    Case("a scalar", "npz", arrays(x_train=np.uint8(3)), "data.npz"),
    Case("no pixels", "npz", arrays(x_train=np.zeros((12, 0, 8), np.uint8)), "data.npz"),
    Case("a directory", "npz", lambda root: root, "npz"),
]
IDX_CASES = [
    Case("truncated images", "idx", idx(train_images_idx3_ubyte=idx_header(8, 12, 8, 8)), "train-images"),
    Case("too long", "idx", idx(train_labels_idx1_ubyte=idx_header(8, 2) + bytes(9)), "train-labels"),
    Case("floats", "idx", idx(train_images_idx3_ubyte=idx_header(13, 1, 1, 1)), "train-images"),
    Case("header of exabytes", "idx", idx(train_images_idx3_ubyte=idx_header(8, *[2**32 - 1] * 3)), "train-images"),
    Case("truncated gzip", "idx", idx(train_images_idx3_ubyte=GZIPPED[:-30]), "train-images"),
    Case("gzip with a flipped bit", "idx", idx(train_images_idx3_ubyte=flip(GZIPPED, 200)), "train-images"),
    Case("whole gzip", "idx", idx(train_images_idx3_ubyte=GZIPPED), expected=IMAGES[0][..., None], options=TWO),
    Case("no classes declared", "idx", idx(), "--config.data.classes=2,"),
    Case("zero bytes", "idx", idx(t10k_labels_idx1_ubyte=b""), "t10k-labels"),
]  # fmt: skip
CELEBA_CASES = [
    Case("a face that is no image", "celeba", celeba(face=b"rubbish"), "3.jpg"),
    Case("a name with ../", "celeba", celeba(partition="../../secret.jpg 0\n2.jpg 2\n"), "secret.jpg"),
    Case("a name twice", "celeba", celeba(attributes="3\nMale\n1.jpg 1\n2.jpg -1\n1.jpg -1\n"), "1.jpg"),
    Case("a face without a line", "celeba", celeba(attributes="2\nMale\n1.jpg 1\n2.jpg -1\n"), "list_attr_celeba.txt"),
    Case("a label of 2", "celeba", celeba(attributes="2\nMale\n1.jpg 2\n2.jpg -1\n"), "line 3"),
    Case("binary list", "celeba", binary_list, "list_attr_celeba.txt"),
]
TFDS_CASES = [
    Case("as it should be", "tfds:toy", prepared(), expected=IMAGES[0][..., None]),
    Case("truncated records", "tfds:toy", prepared(damage=lambda data: data[:-300]), "tfds:toy"),
    Case("empty records", "tfds:toy", prepared(damage=lambda data: b""), "tfds:toy"),
    Case("an example that is no image", "tfds:toy", prepared(image=lambda i: b"rubbish"), "example 0"),
    Case("another size", "tfds:toy", prepared(image=lambda i: PNG if i else BIG), "tfds:toy"),
    Case("no train split", "tfds:toy", prepared(splits=("test",)), "no split 'train'"),
    Case("nothing there", "tfds:toy", empty_folder, "download_and_prepare"),
]
CASES = IMAGE_CASES + FOLDER_CASES + ZIP_CASES + NPZ_CASES + IDX_CASES + CELEBA_CASES + TFDS_CASES
