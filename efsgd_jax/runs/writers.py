"""Writes synthetic images in one of several formats, a batch at a time, so that a million of them fit into memory.

A writer is a context manager that yields ``add(images, labels)``: images uint8 ``[n, S, S, C]`` and labels int ``[n]``.
All calls together get all images, in the order of ``Info.labels``.
"""

import contextlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic
from efsgd_jax.images import class_grid, folder_names, save_grid, to_pillow

# Number of images in a Parquet file and in a tar file.
ROWS_OF_PARQUET, ROWS_OF_TAR = 100_000, 10_000
# Number of images of each class in a grid.
COLUMNS = 10

Add = Callable[[np.ndarray, np.ndarray], None]


class Info(NamedTuple):
    """What is known before the first image is drawn.

    Attributes:
      labels: the label of every image, int32 ``[N]``.
      shape: ``(S, S, C)``.
      class_names: the name of each label.
    """

    labels: np.ndarray
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]


@contextlib.contextmanager
def write_npz(target: Path, info: Info) -> Iterator[Add]:
    """``samples.npz``, which the data source ``npz`` reads.

    Its arrays are ``x_train``, uint8 ``[N, S, S, C]`` (``[N, S, S]`` if grey), the labels ``y_train``, and
    ``class_names``, the names of the labels 0, 1 and so on.
    """
    shape = (len(info.labels), *(info.shape[:2] if info.shape[2] == 1 else info.shape))
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic(target / "samples.npz") as path, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in (("y_train", info.labels), ("class_names", np.array(info.class_names))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        with archive.open("x_train.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_2_0(member, header)

            def add(images: np.ndarray, labels: np.ndarray) -> None:
                member.write(np.ascontiguousarray(images).tobytes())

            yield add


@contextlib.contextmanager
def write_grid(target: Path, info: Info) -> Iterator[Add]:
    """``grid.png``, with the first images of each class in its row."""
    kept: list[list[np.ndarray]] = [[] for _ in info.class_names]

    def add(images: np.ndarray, labels: np.ndarray) -> None:
        for label in np.unique(labels):
            row = kept[label]
            row.extend(images[labels == label][: COLUMNS - len(row)].copy())

    yield add
    images = np.array([image for row in kept for image in row])
    labels = np.array([label for label, row in enumerate(kept) for _ in row])
    save_grid(target / "grid.png", class_grid(images, labels, len(kept), columns=COLUMNS))


@contextlib.contextmanager
def write_folders(target: Path, info: Info) -> Iterator[Add]:
    """``png/CLASS/000000.png`` and so on, which the data source ``folder`` reads with the same labels."""
    folders = [target / "png" / name for name in folder_names(info.class_names)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    digits, count = max(6, len(str(len(info.labels) - 1))), 0

    def add(images: np.ndarray, labels: np.ndarray) -> None:
        nonlocal count
        for image, label in zip(images, labels, strict=True):
            path = folders[label] / f"{count:0{digits}d}.png"
            try:
                to_pillow(image).save(path)
            except OSError as error:
                raise UserError(f"cannot write {path} ({error}); what was written so far is incomplete") from error
            count += 1

    yield add


@contextlib.contextmanager
def write_parquet(target: Path, info: Info) -> Iterator[Add]:
    """``data/train-00000-of-00001.parquet`` and so on, as Hugging Face's ``datasets`` reads and writes them."""
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(info.class_names)},
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata=metadata)
    files = -(-len(info.labels) // ROWS_OF_PARQUET)
    with contextlib.ExitStack() as stack:
        count, writer = 0, None

        def add(images: np.ndarray, labels: np.ndarray) -> None:
            nonlocal count, writer
            while len(images):
                if count % ROWS_OF_PARQUET == 0:
                    stack.close()
                    name = f"train-{count // ROWS_OF_PARQUET:05d}-of-{files:05d}.parquet"
                    path = stack.enter_context(atomic(target / "data" / name))
                    writer = stack.enter_context(pq.ParquetWriter(path, schema))
                now = min(len(images), ROWS_OF_PARQUET - count % ROWS_OF_PARQUET)
                rows = [{"bytes": to_png(x), "path": f"{count + i:06d}.png"} for i, x in enumerate(images[:now])]
                assert writer is not None
                writer.write_table(pa.table({"image": rows, "label": labels[:now].astype(np.int64)}, schema))
                images, labels, count = images[now:], labels[now:], count + now

        yield add


@contextlib.contextmanager
def write_tar(target: Path, info: Info) -> Iterator[Add]:
    """``tar/000000.tar`` and so on, as WebDataset reads them: for each image ``000000000.png`` and its label, ``.cls``.

    ``tar/classes.txt`` has the names of the labels, one in a line.
    """
    (target / "tar").mkdir(parents=True, exist_ok=True)
    names = [" ".join(name.split()) for name in info.class_names]
    (target / "tar/classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    with contextlib.ExitStack() as stack:
        count, archive = 0, None

        def add(images: np.ndarray, labels: np.ndarray) -> None:
            nonlocal count, archive
            for image, label in zip(images, labels, strict=True):
                if count % ROWS_OF_TAR == 0:
                    stack.close()
                    path = stack.enter_context(atomic(target / "tar" / f"{count // ROWS_OF_TAR:06d}.tar"))
                    archive = stack.enter_context(tarfile.open(path, "w"))
                assert archive is not None
                for suffix, content in (("png", to_png(image)), ("cls", str(label).encode())):
                    entry = tarfile.TarInfo(f"{count:09d}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
                count += 1

        yield add


def to_png(image: np.ndarray) -> bytes:
    """An image, uint8 ``[H, W, 1 or 3]``, as a PNG file."""
    stream = io.BytesIO()
    to_pillow(image).save(stream, format="PNG")
    return stream.getvalue()


WRITERS = {
    "npz": write_npz,
    "grid": write_grid,
    "png": write_folders,
    "parquet": write_parquet,
    "webdataset": write_tar,
}
