"""A corpus of the layouts in which people have labelled images, and of what goes wrong with each; see malformed.py."""

import csv
import io
import json
import shutil
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from malformed import COLOUR, IMAGES, LABELS, OTHERS, PNG, RNG, Case, archive, encode, pictures
from PIL import Image

AB = {"classes": "a,b"}
NUMBERED = {"classes": "2"}
UNLABELLED = {"classes": "1"}
JSONL = {"labels": "metadata.jsonl", **AB}
L_AB = {"labels": "l.csv", **AB}
FILES = [PNG, *OTHERS]
NAMES = [f"{i:02}.png" for i in range(16)]


def table(rows: list[list[Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


def rows(first: list[str], label: Callable[[int], Any] = lambda i: "ab"[i % 2], names: list[str] = NAMES) -> list[list]:
    return [first, *([name, label(i)] for i, name in enumerate(names))]


LISTED = table(rows(["file", "label"]))


def flat(*extra: tuple[str, bytes], folder: str = "", names: list[str] = NAMES) -> Callable[[Path], Path]:
    """Sixteen images in one directory, and further files by their names below the root."""

    def make(root: Path) -> Path:
        every = [(f"{folder}{name}", data) for name, data in zip(names, FILES, strict=True)]
        for name, data in [*every, *extra]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        return root

    return make


class NotFlagged(zipfile.ZipInfo):
    """A zip entry whose name is in UTF-8, which the entry does not say, as many programs write it."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode(), self.flag_bits


def zipped(make: Callable[[Path], Path], entry: type[zipfile.ZipInfo] = zipfile.ZipInfo) -> Callable[[Path], Path]:
    """What ``make`` writes, as a zip file."""

    def make_zip(root: Path) -> Path:
        inside = make(root / "inside")
        file = root / "pictures.zip"
        with zipfile.ZipFile(file, "w") as target:
            for path in sorted(inside.rglob("*.*")):
                target.writestr(entry(str(path.relative_to(inside))), path.read_bytes())
        shutil.rmtree(inside)
        return file

    return make_zip


def stylegan(labels: Any = "ids", above: str = "", **changes: Any) -> Callable[[Path], Path]:
    """Buckets of eight, as StyleGAN's and EDM's tools write them: ``00000/img00000000.png``."""
    names = [f"{i // 8:05}/img{i:08}.png" for i in range(16)]
    pairs = [[name, i % 2] for i, name in enumerate(names)] if labels == "ids" else labels
    content = changes.get("content", json.dumps({"labels": pairs}).encode())
    return flat((f"{above}dataset.json", content), folder=above, names=names)


def hugging_face(column: str = "label", form: str = "csv", parts: bool = False) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        for part in ("train/", "test/") if parts else ("",):
            metadata = rows(["file_name", column])
            if form == "csv":
                extra = table(metadata)
            elif form == "jsonl":
                extra = "\n".join(json.dumps(dict(zip(metadata[0], row, strict=True))) for row in metadata[1:]).encode()
            else:
                stream = io.BytesIO()
                columns = list(zip(*metadata[1:], strict=True))
                pq.write_table(pa.table({n: list(c) for n, c in zip(metadata[0], columns, strict=True)}), stream)
                extra = stream.getvalue()
            flat((f"{part}metadata.{form}", extra), folder=part)(root)
        return root

    return make


FEATURES = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}


def parquet(*files: str, names: bool = True, column: str = "label", **changes: Any) -> Callable[[Path], Path]:
    """Tables as Hugging Face's ``datasets`` writes them."""

    def make(root: Path) -> Path:
        for file in files or ("train-00000-of-00001.parquet",):
            images = changes.get("images", [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(FILES)])
            content = pa.table({"image": images, column: changes.get("labels", [i % 2 for i in range(16)])})
            if names:
                content = content.replace_schema_metadata({"huggingface": json.dumps(FEATURES)})
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(content, root / file)
            if "damage" in changes:
                (root / file).write_bytes(changes["damage"]((root / file).read_bytes()))
        return root

    return make


def kaggle_celeba(**changes: bytes) -> Callable[[Path], Path]:
    """CelebA as on Kaggle: .csv lists, and the faces in a directory in a directory of the same name."""

    def make(root: Path) -> Path:
        names = [f"{i:06}.jpg" for i in range(1, 9)]
        attributes = table(
            [["image_id", "Smiling", "Male"], *([n, -1, 1 if i % 2 else -1] for i, n in enumerate(names))]
        )
        partition = table([["image_id", "partition"], *([n, 0 if i < 5 else 2] for i, n in enumerate(names))])
        given = {"list_attr_celeba.csv": attributes, "list_eval_partition.csv": partition}
        given |= {k.replace("_csv", ".csv"): v for k, v in changes.items()}
        for name, data in given.items():
            (root / name).write_bytes(data)
        faces = root / "img_align_celeba/img_align_celeba"
        faces.mkdir(parents=True)
        for name, data in zip(names, FILES[:8], strict=True):
            (faces / name).write_bytes(data)
        return root

    return make


def packed_celeba(root: Path) -> Path:
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba.zip"):
        (root / name).write_bytes(b"")
    return root


def dicom(bits: int = 8, **changes: Any) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    record = Dataset()
    record.file_meta = FileMetaDataset()
    record.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    record.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    record.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    record.SOPClassUID, record.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    record.Rows = record.Columns = 8
    record.SamplesPerPixel, record.PhotometricInterpretation, record.PixelRepresentation = 1, "MONOCHROME2", 0
    record.BitsAllocated = 8 if bits == 8 else 16
    record.BitsStored, record.HighBit = bits, bits - 1
    pixels = IMAGES[0] if bits == 8 else (IMAGES[0].astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    record.PixelData = pixels.tobytes()
    for name, value in changes.items():
        setattr(record, name, value)
    stream = io.BytesIO()
    record.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def two_scans(root: Path) -> Path:
    """Class folders of DICOM files in Hounsfield units."""
    for i, label in enumerate("ab" * 8):
        (root / label).mkdir(exist_ok=True)
        content = IMAGES[0].astype(np.uint16).tobytes() if i == 0 else bytes([i, 0] * 64)
        data = dicom(12, PixelData=content, RescaleSlope="1", RescaleIntercept="-1000")
        (root / label / f"{i}.dcm").write_bytes(data)
    return root


def heic() -> bytes:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return encode(Image.new("RGB", (8, 8), (200, 200, 200)), "HEIF", quality=-1, chroma=444)


def medmnist(**changes: Any) -> Callable[[Path], Path]:
    given = {"train_images": IMAGES, "train_labels": LABELS[:, None], "val_images": IMAGES[:2]}
    given |= {"val_labels": LABELS[:2, None], "test_images": IMAGES[:4], "test_labels": LABELS[:4, None], **changes}
    return plain_npz(**given)


def plain_npz(**given: Any) -> Callable[[Path], Path]:
    def make(root: Path) -> Path:
        np.savez(root / "data.npz", **{k: v for k, v in given.items() if v is not None})
        return root / "data.npz"

    return make


def two_forms(root: Path) -> Path:
    """Two class folders whose names look the same: with one character for the accented letter, and with two."""
    for form in ("NFC", "NFD"):
        folder = root / unicodedata.normalize(form, "caf\u00e9")
        folder.mkdir()
        (folder / "0.png").write_bytes(PNG)
    return root


GREY = IMAGES[0][..., None]
MANY = np.concatenate([IMAGES, RNG.integers(0, 256, (8, 8, 8), dtype=np.uint8)])
MANY_LABELS = np.arange(20) % 2
GREY_RGB = np.broadcast_to(GREY, (8, 8, 3))
CAFE = unicodedata.normalize("NFD", "caf\u00e9")
HEIC = heic()
INVERTED = encode(Image.fromarray(255 - COLOUR))
BOTH_CAFES = {"classes": "a,caf\u00e9"}

LIST_CASES = [
    Case("list of labels", "folder", flat(("l.csv", LISTED)), expected=COLOUR, options=L_AB),
    Case(
        "list that nobody named", "folder", flat(("labels.csv", LISTED)), "--config.data.labels=labels.csv", options=AB
    ),
    Case(
        "list without declared classes", "folder", flat(("l.csv", LISTED)), "classes=a,b", options={"labels": "l.csv"}
    ),
    Case(
        "list with semicolons",
        "folder",
        flat(("l.csv", table(rows(["file", "label"]), ";"))),
        expected=COLOUR,
        options=L_AB,
    ),
    Case(
        "list with a mark of its encoding",
        "folder",
        flat(("l.csv", b"\xef\xbb\xbf" + LISTED)),
        expected=COLOUR,
        options=L_AB,
    ),
    Case(
        "list in Latin-1",
        "folder",
        flat(("l.csv", LISTED.replace(b"label", b"\xe4label"))),
        "is not UTF-8",
        options=L_AB,
    ),
    Case(
        "list of names without extensions",
        "folder",
        flat(("l.csv", table(rows(["image_id", "dx"], names=[n[:2] for n in NAMES])))),
        expected=COLOUR,
        options=L_AB,
    ),
    Case(
        "list of images in deep folders",
        "folder",
        flat(("l.csv", LISTED), folder="x/y/"),
        expected=COLOUR,
        options=L_AB,
    ),
    Case(
        "list that lacks an image",
        "folder",
        flat(("l.csv", LISTED), ("x.png", b"")),
        "no line for 1 of 17",
        options=L_AB,
    ),
    Case(
        "list with an image twice",
        "folder",
        flat(("l.csv", LISTED + b"00.png,b\n")),
        "00.png a second time",
        options=L_AB,
    ),
    Case(
        "list with one name for two images",
        "folder",
        flat(("l.csv", LISTED), ("x/00.png", PNG)),
        "one line '00.png' for",
        options=L_AB,
    ),
    Case(
        "list with an empty label",
        "folder",
        flat(("l.csv", table(rows(["file", "label"], lambda i: "ab"[i % 2] if i else "")))),
        "row 1 has no label",
        options=L_AB,
    ),
    Case(
        "list without a column of labels",
        "folder",
        flat(("l.csv", table(rows(["file", "kind"])))),
        "no column of labels",
        options=L_AB,
    ),
    Case(
        "column by its name",
        "folder",
        flat(("l.csv", table(rows(["file", "kind"])))),
        expected=COLOUR,
        options={"labels": "l.csv", "attribute": "kind", **AB},
    ),
    Case(
        "list without a column of files",
        "folder",
        flat(("l.csv", table(rows(["what", "label"])))),
        "no column of file names",
        options=L_AB,
    ),
    Case(
        "list with a label that was not declared",
        "folder",
        flat(("l.csv", table(rows(["file", "label"], lambda i: "abc"[i % 3])))),
        "'c'",
        options=L_AB,
    ),
    Case("empty list", "folder", flat(("l.csv", b"")), "no column of file names", options=L_AB),
    Case("list with NUL", "folder", flat(("l.csv", b"file,label\n\0")), "l.csv", options=L_AB),
    Case("list that is not there", "folder", flat(), "no such file or directory: l.csv", options=L_AB),
    Case("a directory as list", "folder", flat(("x/y.txt", b"")), "x", options={"labels": "x", **AB}),
    Case(
        "list of whole numbers",
        "folder",
        flat(("l.csv", table(rows(["file", "label"], lambda i: i % 2)))),
        expected=COLOUR,
        options={"labels": "l.csv", **NUMBERED},
    ),
    Case("list in a zip", "folder", zipped(flat(("l.csv", LISTED))), expected=COLOUR, options=L_AB),
]
STYLEGAN_CASES = [
    Case("StyleGAN, zip", "folder", zipped(stylegan()), expected=COLOUR, options=NUMBERED),
    Case("StyleGAN, directory", "folder", stylegan(), expected=COLOUR, options=NUMBERED),
    Case(
        "StyleGAN, in a directory in a zip", "folder", zipped(stylegan(above="x/")), expected=COLOUR, options=NUMBERED
    ),
    Case("StyleGAN without declared classes", "folder", stylegan(), "--config.data.classes=2"),
    Case("StyleGAN without labels", "folder", stylegan(labels=None), "buckets of files"),
    Case("StyleGAN without labels, declared", "folder", stylegan(labels=None), expected=COLOUR, options=UNLABELLED),
    Case(
        "StyleGAN with half of the labels",
        "folder",
        stylegan([["00000/img00000000.png", 1]]),
        "no line for 15",
        options=NUMBERED,
    ),
    Case(
        "StyleGAN with vectors as labels",
        "folder",
        stylegan([["00000/img00000000.png", [0.1]]]),
        "dataset.json",
        options=NUMBERED,
    ),
    Case("StyleGAN, no JSON", "folder", stylegan(content=b"{"), "dataset.json", options=NUMBERED),
    Case("StyleGAN, deep JSON", "folder", stylegan(content=b"[" * 100_000), "dataset.json", options=NUMBERED),
]
HUGGING_FACE_CASES = [
    Case("metadata.csv", "folder", hugging_face(), expected=COLOUR, options=AB),
    Case("metadata.jsonl", "folder", hugging_face(form="jsonl"), expected=COLOUR, options=JSONL),
    Case("metadata.jsonl that nobody named", "folder", hugging_face(form="jsonl"), "labels=metadata.jsonl", options=AB),
    Case("metadata.parquet", "folder", hugging_face(form="parquet"), expected=COLOUR, options=AB),
    Case("metadata.csv in two parts", "folder", hugging_face(parts=True), expected=COLOUR, options=AB),
    Case("metadata with captions only", "folder", hugging_face("text"), "lies in no class folder", options=AB),
    Case(
        "metadata with captions, in class folders",
        "folder",
        archive(("metadata.csv", b"file_name,text\n")),
        expected=COLOUR,
    ),
    Case(
        "metadata.csv, column by its name",
        "folder",
        hugging_face("kind"),
        expected=COLOUR,
        options={"attribute": "kind", **AB},
    ),
    Case(
        "metadata.jsonl, damaged",
        "folder",
        flat(("metadata.jsonl", b'{"file_name": ')),
        "metadata.jsonl",
        options=JSONL,
    ),
    Case("metadata.jsonl of numbers", "folder", flat(("metadata.jsonl", b"1\n2\n")), "metadata.jsonl", options=JSONL),
    Case("metadata.parquet, damaged", "folder", flat(("metadata.parquet", b"PAR1")), "metadata.parquet", options=AB),
]
PARQUET_CASES = [
    Case("one file", "parquet", lambda r: parquet()(r) / "train-00000-of-00001.parquet", expected=COLOUR),
    Case(
        "two parts", "parquet", parquet("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"), expected=COLOUR
    ),
    Case("parts as directories", "parquet", parquet("data/train/0.parquet", "data/test/0.parquet"), expected=COLOUR),
    Case("no name of a part", "parquet", parquet("0000.parquet"), expected=COLOUR),
    Case("test and a nameless part", "parquet", parquet("0000.parquet", "test.parquet"), "none of them named train"),
    Case("no names of classes", "parquet", parquet(names=False), "--config.data.classes=2"),
    Case("labels as text", "parquet", parquet(names=False, labels=["a", "b"] * 8), expected=COLOUR, options=AB),
    Case("no column of labels", "parquet", parquet(column="kind"), "no column 'label'", options=AB),
    Case("column by its name", "parquet", parquet(column="kind"), expected=COLOUR, options={"attribute": "kind", **AB}),
    Case("images without labels", "parquet", parquet(column="kind"), expected=COLOUR, options=UNLABELLED),
    Case("images as bytes", "parquet", parquet(images=FILES), expected=COLOUR),
    Case("images as paths", "parquet", parquet(images=NAMES), "no column of encoded images"),
    Case("an image that is none", "parquet", parquet(images=[b"rubbish", *FILES[1:]]), "in row 0 of"),
    Case("an image that is missing", "parquet", parquet(images=[None, *FILES[1:]]), "row 0 has no image"),
    Case("a label that is missing", "parquet", parquet(labels=[None, *[0] * 15]), "row 0 has no label"),
    Case("no rows", "parquet", parquet(images=pa.array([], pa.binary()), labels=pa.array([], pa.int64())), "no rows"),
    Case("truncated", "parquet", parquet(damage=lambda data: data[:-40]), "train-00000-of-00001.parquet"),
    Case("zero bytes", "parquet", parquet(damage=lambda data: b""), "train-00000-of-00001.parquet"),
    Case("no file", "parquet", flat(), "contains no .parquet file"),
]
FORMAT_CASES = [
    Case("HEIC", "folder", pictures("8.heic", HEIC), expected=np.full((8, 8, 3), 200, np.uint8)),
    Case("HEIC, truncated", "folder", pictures("8.heic", HEIC[:200]), "b/8.heic"),
    Case("DICOM", "folder", pictures("8.dcm", dicom()), expected=GREY_RGB),
    Case("DICOM of 12 bits", "folder", pictures("8.dcm", dicom(12)), expected=GREY_RGB),
    Case(
        "DICOM, white is zero",
        "folder",
        pictures("8.dcm", dicom(PhotometricInterpretation="MONOCHROME1")),
        expected=255 - GREY_RGB,
    ),
    Case("DICOM with signed values", "folder", pictures("8.dcm", dicom(12, PixelRepresentation=1)), "value_range"),
    Case(
        "DICOM of several frames", "folder", pictures("8.dcm", dicom(PixelData=bytes(128), NumberOfFrames="2")), "frame"
    ),
    Case("DICOM, truncated", "folder", pictures("8.dcm", dicom()[:-30]), "b/8.dcm"),
    Case("DICOM named as PNG", "folder", pictures("8.png", dicom()), expected=GREY_RGB),
    Case("DICOM, no DICOM", "folder", pictures("8.dcm", b"rubbish"), "b/8.dcm"),
    Case(
        "DICOM rescaled, declared",
        "folder",
        two_scans,
        expected=GREY,
        options={"value_range": "-1000..-745", "channels": 1},
    ),
]
NPZ_CASES = [
    Case("MedMNIST", "npz", medmnist(), expected=GREY, options=NUMBERED),
    Case("MedMNIST without declared classes", "npz", medmnist(), "--config.data.classes=2"),
    Case(
        "MedMNIST with several labels each",
        "npz",
        medmnist(train_labels=np.zeros((12, 14), int)),
        "one-hot",
        options=NUMBERED,
    ),
    Case("MedMNIST without test labels", "npz", medmnist(test_labels=None), "test_labels", options=NUMBERED),
    Case("x and y", "npz", plain_npz(x=MANY[:, None] / 255.0, y=MANY_LABELS), expected=GREY, options=NUMBERED),
    Case("images and labels", "npz", plain_npz(images=MANY, labels=MANY_LABELS), expected=GREY, options=NUMBERED),
    Case("arr_0 and arr_1", "npz", plain_npz(arr_0=MANY, arr_1=MANY_LABELS), expected=GREY, options=NUMBERED),
    Case("arr_0 alone", "npz", plain_npz(arr_0=MANY), "--config.data.classes=1", options=NUMBERED),
    Case("arr_0 alone, declared", "npz", plain_npz(arr_0=MANY), expected=GREY, options=UNLABELLED),
    Case(
        "other keys",
        "npz",
        plain_npz(faces=MANY, who=MANY_LABELS),
        "x_train=d['faces'], y_train=d['who']",
        options=NUMBERED,
    ),
]
NAME_CASES = [
    Case(
        "class with an accent", "folder", pictures("8.png", INVERTED, CAFE), expected=255 - COLOUR, options=BOTH_CAFES
    ),
    Case(
        "class with an accent, zip",
        "folder",
        zipped(pictures("8.png", INVERTED, CAFE)),
        expected=255 - COLOUR,
        options=BOTH_CAFES,
    ),
    Case(
        "zip in UTF-8 that does not say so",
        "folder",
        zipped(pictures("8.png", INVERTED, "caf\u00e9"), NotFlagged),
        expected=255 - COLOUR,
        options=BOTH_CAFES,
    ),
    Case("two names that look the same", "folder", two_forms, "twice, or two names that look the same"),
]
CELEBA_CASES = [
    Case("as on Kaggle", "celeba", kaggle_celeba(), expected=COLOUR, options={"image_size": 8}),
    Case("as on Kaggle, another attribute", "celeba", kaggle_celeba(), "Smiling", options={"attribute": "Simling"}),
    Case(
        "as on Kaggle, a number short",
        "celeba",
        kaggle_celeba(list_eval_partition_csv=b"image_id,partition\n000001.jpg\n"),
        "line 2",
    ),
    Case("packed faces", "celeba", packed_celeba, "img_align_celeba.zip is packed"),
]


LAYOUT_CASES = [
    *LIST_CASES,
    *STYLEGAN_CASES,
    *HUGGING_FACE_CASES,
    *PARQUET_CASES,
    *FORMAT_CASES,
    *NPZ_CASES,
    *NAME_CASES,
    *CELEBA_CASES,
]
