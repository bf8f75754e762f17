"""Prepared data: any source, read once and written as plain arrays, which stay on disk while a run reads them.

A prepared directory has ``train_images.npy``, ``train_labels.npy``, the same of the test part, ``train_groups.npy`` if
images have groups, and ``prepared.json``, which is written last.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efsgd_jax.data.dataset import Dataset, Recorded
from efsgd_jax.data.validate import check_labels, check_path, one_line
from efsgd_jax.errors import UserError
from efsgd_jax.files import array_on_disk, write_json

WHAT = "a directory that efsgd prepare wrote"
DESCRIPTION = "prepared.json"
NOTICE = "PRIVATE.txt"
NOTICE_TEXT = """These files are the images and labels themselves, one after the other, as efsgd prepare copied them.
They have no protection: nothing here may be published. Delete the directory when no run needs it any more.
"""
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "train_groups")
# What changes how a source is read, and its value where the source itself decides.
UNSET: dict[str, Any] = {
    "image_size": None, "channels": None, "attribute": None, "test_fraction": 0.2, "classes": None,
    "value_range": None, "labels": "", "groups": "",
}  # fmt: skip
BLOCK = 4096


class DiskArrays:
    """Allocates arrays in files of a directory instead of in memory."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.made: list[np.memmap] = []

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """A uint8 array in a new .npy file."""
        path = self.directory / f"images_{len(self.made)}.npy"
        array = array_on_disk(path, np.uint8, shape)
        self.made.append(array)
        return array

    def save(self, array: np.ndarray, path: Path) -> None:
        """Writes an array to ``path``; one that was allocated here is only renamed."""
        own = next((made for made in self.made if made is array), None)
        if own is not None:
            own.flush()
            Path(str(own.filename)).replace(path)
            return
        written = array_on_disk(path, array.dtype, array.shape)
        for start in range(0, len(array), BLOCK):
            written[start : start + BLOCK] = array[start : start + BLOCK]
        written.flush()


def write_prepared(dataset: Dataset, directory: Path, disk: DiskArrays, settings: Mapping[str, Any]) -> str:
    """Writes a data set to ``directory``, which exists; returns its fingerprint. Private.

    Args:
      dataset: the data set.
      directory: the directory.
      disk: what allocated the images of ``dataset``.
      settings: how the source was read: the arguments of ``load_dataset`` in ``UNSET``.
    """
    for name in ARRAYS:
        array = getattr(dataset, name)
        if array is not None:
            disk.save(array, directory / f"{name}.npy")
    # Of the files, not of the arrays in memory: what was written is what a run will read.
    sha256 = _opened(directory, dataset.class_names, dataset.source).fingerprint()
    (directory / NOTICE).write_text(NOTICE_TEXT)
    described = {
        "format": 1,
        "source": dataset.source,
        "class_names": list(dataset.class_names),
        "settings": {name: settings.get(name, unset) for name, unset in UNSET.items()},
        "sha256": sha256,
        "files": _stamps(directory),
    }
    for path in directory.iterdir():
        path.chmod(0o600)
    write_json(directory / DESCRIPTION, described, private=True)
    return sha256


def read_prepared(path: Path | str | None, settings: Mapping[str, Any]) -> Dataset:
    """Opens a prepared directory; its images stay on disk.

    Args:
      path: the directory.
      settings: how the data should be read; what is set must be what the directory was prepared with.

    Raises:
      UserError: it is no prepared directory, is damaged or has changed, or was prepared with other settings.
    """
    root = check_path(path, "prepared", WHAT)
    described = _description(root)
    class_names, source, before = tuple(described["class_names"]), described["source"], described["settings"]
    for name, unset in UNSET.items():
        asked, was = settings.get(name, unset), before.get(name, unset)
        if asked not in (unset, was):
            raise UserError(
                f"{root} was prepared with {name}={was!r}, and config.data.{name} is {asked!r}; prepare it "
                "again with that, or leave it out"
            )
    sha256 = described["sha256"]
    dataset = _opened(root, class_names, source, sha256 if _stamps(root) == described["files"] else None)
    if dataset.fingerprint() != sha256:  # read anew if the files' sizes or times have changed, as after copying them
        raise UserError(f"the arrays in {root} have changed since they were prepared; prepare the data again")
    return dataset


def _description(root: Path) -> dict[str, Any]:
    """The content of ``prepared.json``, with values of the right types."""
    kinds = {"class_names": list, "source": str, "settings": dict, "sha256": str, "files": dict}
    try:
        described = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))
        if not all(isinstance(described[key], kind) for key, kind in kinds.items()):
            raise ValueError("a value has another type")
        if not all(isinstance(name, str) for name in described["class_names"]):
            raise ValueError("a class has no name")
    except FileNotFoundError as error:
        raise UserError(f"{root} has no {DESCRIPTION}; set --config.data.path to {WHAT}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root / DESCRIPTION} is damaged ({one_line(error)}); prepare the data again") from error
    return described


def _stamps(directory: Path) -> dict[str, list[int]]:
    """The size and the time of each array's file, by which a changed one is noticed without reading it."""
    files = [path for name in ARRAYS if (path := directory / f"{name}.npy").is_file()]
    return {path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in files}


def _opened(root: Path, class_names: tuple[str, ...], source: str, sha256: str | None = None) -> Dataset:
    found: dict[str, Any] = {name: _array(root / f"{name}.npy") for name in ARRAYS[:4]}
    shapes = set()
    for part in ("train", "test"):
        images, name = found[f"{part}_images"], f"{part}_labels"
        shapes.add(images.shape[1:])
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not len(images):
            raise UserError(f"{root}: {part}_images.npy is {images.dtype} {images.shape}; prepare the data again")
        labels = found[name] = check_labels(np.asarray(found[name]), len(images), f"{part} labels", str(root))
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise UserError(f"{root}: {name}.npy has labels beyond the classes; prepare the data again")
    if len(shapes) > 1 or len(set(images.shape[1:3])) > 1:
        raise UserError(f"{root}: the images are not square, or not of one size; prepare the data again")
    if (root / "train_groups.npy").exists():
        groups = found["train_groups"] = np.asarray(_array(root / "train_groups.npy"))
        numbers = np.unique(groups) if groups.dtype.kind in "iu" else np.zeros(0)
        if groups.shape != found["train_labels"].shape or not np.array_equal(numbers, np.arange(len(numbers))):
            raise UserError(f"{root}: train_groups.npy has not one group for each image; prepare the data again")
    arrays = found["train_images"], found["train_labels"], found.get("train_groups")
    recorded = Recorded(sha256, arrays) if sha256 else None
    return Dataset(**found, class_names=class_names, source=source, recorded=recorded)


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is missing or damaged ({one_line(error)}); prepare the data again") from error
