"""Training states on disk, each one file that begins with its own hash. They hold keys and optimiser state: private."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic
from efsgd_jax.training.devices import plain, typed

PyTree = Any
KEPT = 2
SUFFIX = ".msgpack"
HASH_BYTES = hashlib.sha256().digest_size


class Checkpoints:
    """The last two states of a run, each whole or absent: a second one is there if a disk spoils the first.

    Args:
      directory: of the files, named by their steps.
    """

    def __init__(self, directory: Path):
        self._directory = directory

    def save(self, step: int, state: PyTree) -> None:
        """Keeps a state, and the one before it. When this returns it is on the disk, even if the power fails next.

        Raises:
          UserError: it cannot be written; those before it are intact.
        """
        content = msgpack_serialize({name: plain(x) for name, x in _named(state)})
        with atomic(self._path(step), private=True) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        for old in self._steps()[KEPT:]:
            self._path(old).unlink()

    def restore(self, like: Callable[[int], PyTree]) -> tuple[int, PyTree]:
        """The latest state that is as it was written; ``(0, None)`` if there is none.

        Args:
          like: ``like(step)``, a pytree of the shapes and dtypes that the state of that step has.

        Raises:
          UserError: every checkpoint is damaged, or the latest whole one is of another shape.
        """
        damaged: list[Path] = []
        for step in self._steps():
            path = self._path(step)
            content = _whole(path)
            if content is None:
                damaged.append(path)
                continue
            for newer in damaged:
                print(f"warning: {newer} is damaged; the run goes on from checkpoint {step}", file=sys.stderr)
                newer.unlink()
            return step, _like(like(step), msgpack_restore(content), path)
        if damaged:
            raise UserError(
                f"{damaged[0]} is damaged, and there is no whole checkpoint before it; restore it from a copy, or "
                f"remove {self._directory} to start again with the same keys"
            )
        return 0, None

    def _path(self, step: int) -> Path:
        return self._directory / f"{step:09d}{SUFFIX}"

    def _steps(self) -> list[int]:
        """Of the files, the latest first."""
        found = self._directory.glob(f"*{SUFFIX}")
        return sorted((int(path.stem) for path in found if path.stem.isdigit()), reverse=True)


def _named(state: PyTree) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(state)]


def _whole(path: Path) -> bytes | None:
    """What was written, or None if the file is not as it was written."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[HASH_BYTES:]
    return content if hashlib.sha256(content).digest() == data[:HASH_BYTES] else None


def _like(state: PyTree, arrays: dict[str, np.ndarray], path: Path) -> PyTree:
    names = _named(state)
    shapes = {name: (plain(x).shape, plain(x).dtype) for name, x in names}
    if shapes != {name: (x.shape, x.dtype) for name, x in arrays.items()}:
        raise UserError(
            f"{path} was written by another version of efsgd_jax; continue the run with that one, or use another "
            "--workdir"
        )
    leaves = [typed(jnp.asarray(arrays[name]), x) for name, x in names]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)
