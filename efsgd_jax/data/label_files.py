"""Files that list the label of each image: CSV, Hugging Face's metadata, and StyleGAN's dataset.json."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from efsgd_jax.data.groups import GROUP_COLUMNS
from efsgd_jax.data.layout import Parts
from efsgd_jax.data.tree import Tree
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

# Read without being asked for, where they lie beside the images: StyleGAN's file, and those of Hugging Face that name
# their columns once. In a .jsonl file each image names its own, so that one image could make it a list of labels.
STYLEGAN = "dataset.json"
HUGGING_FACE = ("metadata.csv", "metadata.parquet")
# Names of the columns in the files of others, the first one present; in lower case.
FILE_COLUMNS = ("file_name", "filename", "file", "path", "image_path", "image", "image_id", "img", "id")
LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "dx", "diagnosis", "y")

Rows = list[dict[str, Any]]


class Kind(NamedTuple):
    """What a list has for each image: its name in errors, the names of its column, and how to name another one."""

    name: str
    columns: tuple[str, ...]
    key: str


LABELS = Kind("label", LABEL_COLUMNS, "--config.data.attribute or ")
GROUPS = Kind("group", GROUP_COLUMNS, "")


class Labels:
    """The label, or the group, of each image of a tree, as text.

    A name in the list is a path relative to the list's directory, or a file name, with or without its extension, that
    only one image has.
    """

    def __init__(self, where: str, above: Parts, labels: dict[str, str]):
        """``labels`` has the labels by name; ``above`` is the list's directory and ``where`` its name."""
        self.where, self.above, self.labels = where, above, labels

    def of(self, images: Sequence[Parts]) -> list[str]:
        """The label, or the group, of each image.

        Raises:
          UserError: an image has no label in the list, or two images are meant by one name.
        """
        found: dict[str, Parts] = {}
        result, missing = [], []
        for image in images:
            name = next((name for name in self._names(image) if name in self.labels), None)
            if name is None:
                missing.append(image)
                continue
            if name in found:
                both = " and ".join("/".join(parts) for parts in (found[name], image))
                raise UserError(f"{self.where} has one line {name!r} for {both}; list the paths of both")
            found[name] = image
            result.append(self.labels[name])
        if missing:
            raise UserError(
                f"{self.where} has no line for {len(missing)} of {len(images)} images, such as {'/'.join(missing[0])}; "
                "add their lines or remove the images"
            )
        return result

    def _names(self, image: Parts) -> list[str]:
        """The names by which the list may mean an image, the most exact one first."""
        path = image[len(self.above) :] if image[: len(self.above)] == self.above else image
        whole, last = PurePosixPath(*path), PurePosixPath(path[-1])
        return [str(whole), str(whole.with_suffix("")), last.name, last.stem]


def read_groups(tree: Tree, wanted: str) -> Labels:
    """The list of groups ``config.data.groups``: a column of files and one of groups, such as ``patient``.

    Raises:
      UserError: the list is not there, cannot be read, or has no groups.
    """
    where, data, above = _find(tree, wanted, "data.groups")
    return _labels(data, where, above, None, GROUPS)


def group_column(tree: Tree, labels: str) -> str:
    """The column of groups in the list of labels ``labels``, in words for a warning; "" if there is none."""
    if not labels:
        return ""
    where, data, _ = _find(tree, labels, "data.labels")
    found = _column(_rows(data, where)[0] or [], None, GROUP_COLUMNS)
    return f"the column {found} of {where}" if found else ""


def _find(tree: Tree, wanted: str, key: str) -> tuple[str, bytes, Parts]:
    """The name, the content and the directory of a list, by its name in the tree or its own path."""
    inside = next((other for other in tree.others if "/".join(other) == wanted), None)
    if inside is not None:
        return tree.name(inside), tree.read(inside), inside[:-1]
    file = check_path(wanted, "folder", "a list, a .csv file", key=key)
    if file.is_dir():
        raise UserError(f"{file} is a directory; set --config.{key} to a list, a .csv file")
    return str(file), _read(file), ()


def find_labels(tree: Tree, wanted: str, column: str | None, parts: Sequence[Parts]) -> dict[Parts, Labels]:
    """The lists of labels of a tree, by the directory below which they hold; empty if folders are the classes.

    Args:
      tree: the files.
      wanted: ``config.data.labels``, the list's name in the tree or its path; "" for the lists that have a known name.
      column: name of the column with the labels; None for the first one of ``LABEL_COLUMNS``.
      parts: the directories of the training and the test part.

    Raises:
      UserError: the list is not there, cannot be read, or has no labels.
    """
    if wanted:
        where, data, above = _find(tree, wanted, "data.labels")
        return {(): _labels(data, where, above, column)}
    found = {}
    for other in tree.others:
        here = other[:-1]
        if other[-1] == STYLEGAN and (here == () or here in [part[: len(here)] for part in parts]):
            found[here] = _labels(tree.read(other), tree.name(other), here, column)
        elif other[-1] in HUGGING_FACE and here in parts:
            columns, _ = _rows(tree.read(other), tree.name(other))
            if _column(
                columns or [], column, LABEL_COLUMNS
            ):  # else it has other information, and folders are the classes
                found[here] = _labels(tree.read(other), tree.name(other), here, column)
    return found


def unused_list(tree: Tree) -> str:
    """What to add to an error about images without a class: the advice to use a list that lies there, or ""."""
    lists = ["/".join(other) for other in tree.others if other[-1].lower().endswith((".csv", ".tsv", ".jsonl"))]
    return f"; if {lists[0]} lists their labels, set --config.data.labels={lists[0]}" if lists else ""


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); change its permissions") from error


def _labels(data: bytes, where: str, above: Parts, column: str | None, kind: Kind = LABELS) -> Labels:
    if where.endswith(STYLEGAN) and kind is LABELS:
        return Labels(where, above, _of_stylegan(data, where))
    columns, rows = _rows(data, where)
    result: dict[str, str] = {}
    names: Any = None
    labels: Any = None
    if columns is not None:
        names, labels = _column(columns, None, FILE_COLUMNS), _column(columns, column, kind.columns)
        for found, what, known, key in (
            (names, "file names", FILE_COLUMNS, ""),
            (labels, f"{kind.name}s", (column,) if column else kind.columns, kind.key),
        ):
            if found is None:
                raise UserError(
                    f"{where} has no column of {what} (it has: {one_line(', '.join(columns)) or 'nothing'}); name the "
                    f"column by {key}one of {', '.join(map(str, known))} in its first line"
                )
    for number, row in enumerate(rows, start=1):
        if columns is None:
            names, labels = _column(list(row), None, FILE_COLUMNS), _column(list(row), column, kind.columns)
        name, label = _text(row.get(names)), _text(row.get(labels))
        if not name or not label:
            raise UserError(f"{where}: row {number} has no {'file name' if not name else kind.name}; complete it")
        _add(result, name, label, where)
    return Labels(where, above, result)


def _of_stylegan(data: bytes, where: str) -> dict[str, str]:
    """``{"labels": [["00000/img00000000.png", 6], ...]}``, as the tools of StyleGAN and EDM write it."""
    pairs = _json(data, where)
    pairs = pairs.get("labels") if isinstance(pairs, dict) else None
    if not pairs:
        raise UserError(
            f"{where} has no labels, and the folders beside it are buckets of files, not classes; remove it if they "
            "are classes, or for images without labels set --config.data.classes=1"
        )
    result: dict[str, str] = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], int)):
            raise UserError(f"{where} has the entry {one_line(pair)}; expected a file name and a whole number")
        _add(result, pair[0], str(pair[1]), where)
    return result


def _rows(data: bytes, where: str) -> tuple[list[str] | None, Rows]:
    """The names of the columns, None if each row names its own; and the rows, one dictionary for each image."""
    if where.endswith(".parquet"):
        from efsgd_jax.data.parquet import read_table

        content = read_table(data, where)
        return content.column_names, content.to_pylist()
    if where.endswith((".jsonl", ".json")):
        text = _decoded(data, where)
        whole = [_json(text, where)] if where.endswith(".json") else None
        rows = whole[0] if whole else [_json(line, where) for line in text.splitlines() if line.strip()]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{where} does not have one object for each image; write it as CSV")
        return None, rows
    text = _decoded(data, where)
    try:
        dialect: Any = csv.Sniffer().sniff(text[:4096].splitlines()[0], delimiters=",;\t") if text else "excel"
    except (csv.Error, IndexError):
        dialect = "excel"
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), dialect=dialect, restkey="", strict=True)
        rows = list(reader)
        return list(reader.fieldnames or []), rows
    except csv.Error as error:
        raise UserError(f"{where} is no CSV file ({one_line(error)}); write it again") from error


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")  # with or without the mark that spreadsheets put in front
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 ({one_line(error)}); save it in this encoding") from error


def _json(data: bytes | str, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON ({one_line(error)}); write it again") from error


def _column(columns: Sequence[str], wanted: str | None, known: Sequence[str]) -> Any:
    """The column's own name: ``wanted``, or else the first of ``known`` in any case of letters; None if absent."""
    if wanted:
        return wanted if wanted in columns else None
    lower = {name.strip().lower(): name for name in reversed(columns)}
    return next((lower[name] for name in known if name in lower), None)


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, list | dict) else str(value).strip()


def _add(labels: dict[str, str], name: str, label: str, where: str) -> None:
    name = name.replace("\\", "/").removeprefix("./")
    if name in labels:
        raise UserError(f"{where} lists {name} a second time; keep one line for each image")
    labels[name] = label
