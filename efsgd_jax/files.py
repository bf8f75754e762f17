"""Files that are written atomically, and private files that only their owner can read."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from efsgd_jax.errors import UserError

# End of the names of temporary files.
TEMPORARY = ".tmp"
# A file that marks a directory whose content was protected by other means than differential privacy (``protect/``).
PROTECTION_MARK = "protection.json"


@contextlib.contextmanager
def atomic(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yields the path of a temporary file in the same directory, which replaces ``path`` only if the block succeeds.

    Afterwards the file is flushed to the disk, so that it survives a power failure.

    Args:
      path: the file to write; its directory is created.
      private: whether only the owner can read the file.

    Raises:
      UserError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if private:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}); free or change the place") from error
    finally:
        with contextlib.suppress(OSError):  # there is none if its directory could not be made
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flushes a file, or the entries of a directory, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a directory as a file
        return
    # Windows flushes only files that are open for writing.
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def array_on_disk(path: Path, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.memmap:
    """A new memory-mapped .npy file that only its owner can read, with all of its space taken.

    Without the space, a full disk would end the process by a signal when a page is written.

    Raises:
      OSError: the disk has too little space, or the file cannot be written.
    """
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    array: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def remove_temporary(directory: Path) -> None:
    """Deletes the temporary files that killed processes have left in ``directory``.

    Call it only if no other process writes there.
    """
    for path in directory.glob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def check_new_directory(path: Path, what: str) -> None:
    """Checks that ``path`` does not exist or is an empty directory; ``what`` names its content in the error.

    Raises:
      UserError: ``path`` is a file, or a directory that is not empty.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists and is not an empty directory; name another place for the {what}")


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    with atomic(path, private=private) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n", private=private)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); is this a workdir of efsgd_jax.train?") from error
