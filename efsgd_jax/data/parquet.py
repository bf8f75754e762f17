"""The source ``parquet``: tables of encoded images and labels, as Hugging Face's ``datasets`` stores them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from efsgd_jax.data.dataset import Empty, in_memory
from efsgd_jax.data.declarations import only_class
from efsgd_jax.data.decode import decode_parts, warn_of_conversion
from efsgd_jax.data.layout import TEST_NAMES, TRAIN_NAMES
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.scale import BYTES, Range
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

WHAT = "a .parquet file, or a directory of such files"
DEFAULT_LABEL = "label"


class Part(NamedTuple):
    """The rows of the files of one part.

    Attributes:
      images: the encoded images.
      labels: their labels, numbers or text.
      names: the name of each image for errors: file and row.
      class_names: the names that the files have for the labels; None if they have none.
      groups: the name of each image's group; empty without groups.
    """

    images: list[bytes]
    labels: np.ndarray
    names: list[str]
    class_names: tuple[str, ...] | None
    groups: list[str]


def read_parquet(
    path: Path | str | None,
    image_size: int | None,
    channels: int | None,
    classes: int | tuple[str, ...] | None = None,
    value_range: Range | None = None,
    attribute: str | None = None,
    groups: str = "",
    empty: Empty = in_memory,
) -> RawDataset:
    """Reads the files below ``path``, in sorted order.

    Files whose name or directory begins with ``train`` are the training part, as in ``train-00000-of-00002.parquet``,
    and those of the first of ``test``, ``testing``, ``val``, ``valid``, ``validation`` that exists are the test part.
    If no file has such a name, the test part is split off later. A row has an encoded image, as a struct with the field
    ``bytes`` or as binary data, in the first such column; and a label.

    Args:
      path: the file or directory.
      image_size: height and width to which images are cropped and resized; if None, all images must have the same size.
      channels: number of channels, 1 or 3; None means 3.
      classes: the declared classes, as ``parse_classes`` returns them; names that the files have for the labels, in the
        metadata of Hugging Face, need no declaration.
      value_range: the range of the numbers in the images; None for the full range of their bits.
      attribute: name of the column with the labels; None means "label".
      groups: name of the column with the groups; "" for no groups.
      empty: what allocates the array of all images.

    Raises:
      UserError: a file cannot be read, has no column of images or of labels, or an image cannot be decoded.
    """
    root = check_path(path, "parquet", WHAT)
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*.parquet") if file.is_file())
    if not files:
        raise UserError(f"{root} contains no .parquet file; set --config.data.path to {WHAT}")
    train_files, test_files = _parts(files, root)
    column = "" if only_class(classes) else attribute or DEFAULT_LABEL
    train = _read_part(train_files, column, groups)
    test = _read_part(test_files, column, groups) if test_files else None
    encoded, names = train.images + (test.images if test else []), train.names + (test.names if test else [])
    target, n = channels or 3, len(train.images)
    if not n:
        raise UserError(f"{train_files[0]} has no rows; add training images")
    images, test_images = decode_parts(
        range(n),
        range(n, len(encoded)) if test else None,
        encoded.__getitem__,
        names.__getitem__,
        image_size,
        target,
        value_range,
        empty,
    )
    source = f"parquet:{root}"
    warn_of_conversion(images.gray, target, channels, source)
    return RawDataset(
        train_images=images.pixels,
        train_labels=train.labels,
        test_images=test_images,
        test_labels=test.labels if test else None,
        class_names=train.class_names,
        source=source,
        # The declared range was applied when the images were decoded, and must not be applied again.
        value_range=BYTES if value_range else None,
        hashes=images.hashes,
        groups=np.array(train.groups + (test.groups if test else [])) if groups else None,
    )


def _parts(files: Sequence[Path], root: Path) -> tuple[list[Path], list[Path]]:
    """The files of the training part, and those of the test part."""

    def of(name: str) -> list[Path]:
        def is_of(file: Path) -> bool:
            places = [*file.relative_to(root).parts[:-1], file.name] if file != root else [file.name]
            # The name of a part is followed by nothing or by a number, as in train-00000-of-00002 and train_1.
            return any(p.lower().removesuffix(".parquet").replace("_", "-").split("-")[0] == name for p in places)

        return [file for file in files if is_of(file)]

    train = next((found for name in TRAIN_NAMES if (found := of(name))), [])
    test = next((found for name in TEST_NAMES if (found := of(name))), [])
    if not train and test and len(test) < len(files):
        raise UserError(f"{root} has {test[0].name} and other files, none of them named train; rename those to train")
    return (train, test) if train else (list(files), [])


def _read_part(files: Sequence[Path], column: str, group_column: str) -> Part:
    images: list[bytes] = []
    labels: list[Any] = []
    names: list[str] = []
    groups: list[str] = []
    class_names = None
    for file in files:
        table = read_table(file, str(file))
        image_column = _image_column(table, file)
        if column and column not in table.column_names:
            raise UserError(
                f"{file} has no column {column!r} (it has: {one_line(', '.join(table.column_names))}); set "
                "--config.data.attribute to the column with the labels, or for images without labels set "
                "--config.data.classes=1"
            )
        found = _class_names(table.schema, column)
        if class_names not in (None, found):
            raise UserError(f"{file} has other names of classes than {files[0]}; write the files together")
        class_names = found
        rows: list[Any] = [r.get("bytes") if isinstance(r, dict) else r for r in table[image_column].to_pylist()]
        values = table[column].to_pylist() if column else [0] * len(rows)
        for i, (row, value) in enumerate(zip(rows, values, strict=True)):
            if not row or value is None:
                raise UserError(f"{file}: row {i} has no {'label' if row else 'image'}; complete or remove it")
        if group_column:
            if group_column not in table.column_names:
                raise UserError(f"{file} has no column {group_column!r}; correct --config.data.groups")
            groups += ["" if value is None else str(value) for value in table[group_column].to_pylist()]
        images += rows
        labels += values
        names += [f"in row {i} of {file}" for i in range(len(rows))]
    kind = np.array(labels) if labels else np.zeros(0, np.int64)
    return Part(images, kind, names, class_names, groups)


def _image_column(table: pa.Table, file: Path) -> str:
    for field in table.schema:
        stored = field.type.field("bytes").type if pa.types.is_struct(field.type) and _has_bytes(field.type) else None
        if any(kind(stored or field.type) for kind in (pa.types.is_binary, pa.types.is_large_binary)):
            return str(field.name)
    raise UserError(
        f"{file} has no column of encoded images (it has: {one_line(', '.join(table.column_names))}); a column of PNG "
        "or JPEG bytes is needed"
    )


def _has_bytes(kind: pa.DataType) -> bool:
    return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))


def _class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """The names in the metadata that Hugging Face's ``datasets`` writes for a ``ClassLabel``."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(str(name) for name in features[column]["names"])
    except (KeyError, ValueError, TypeError):
        return None


def read_table(source: Path | bytes, where: str) -> pa.Table:
    """Reads a table from a file or its bytes; ``where`` is its name, for the error.

    Raises:
      UserError: it is damaged, or no Parquet file.
    """
    try:
        return pq.read_table(pa.BufferReader(source) if isinstance(source, bytes) else source)
    except (OSError, pa.ArrowException, MemoryError) as error:
        raise UserError(f"{where} is no readable Parquet file ({one_line(error)}); write it again") from error
