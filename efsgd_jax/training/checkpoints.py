"""Checkpoints: training states on disk, each in one file that begins with a hash of its content. They are private."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic
from efsgd_jax.training.devices import plain, typed

PyTree = Any
# Number of checkpoints that are kept: if the last one is damaged, the run resumes from the one before it.
KEPT = 2
SUFFIX = ".msgpack"
HASH_BYTES = hashlib.sha256().digest_size


class Checkpoints:
    """The checkpoints of a run, of which the last two are kept, so that one is left if a disk damages the other.

    Each file is written atomically: after a crash it is complete or does not exist.

    Args:
      directory: directory of the files, which are named by their steps.
    """

    def __init__(self, directory: Path):
        self._directory = directory

    def save(self, step: int, state: PyTree) -> None:
        """Saves a state, and removes all but the last two. When this returns, the file survives a loss of power.

        Raises:
          UserError: the file cannot be written; earlier checkpoints are intact.
        """
        content = msgpack_serialize({name: plain(x) for name, x in _named(state)})
        with atomic(self._path(step), private=True) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        for old in self._steps()[KEPT:]:
            self._path(old).unlink()

    def restore(self, like: Callable[[int], PyTree]) -> tuple[int, PyTree]:
        """Step and state of the latest undamaged checkpoint; ``(0, None)`` if there is no checkpoint.

        Damaged checkpoints that are newer are removed, with a warning.

        Args:
          like: ``like(step)`` returns a pytree with the shapes and dtypes of the state at that step.

        Raises:
          UserError: every checkpoint is damaged, or the latest undamaged one has other shapes or dtypes.
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
        """The steps of the checkpoints, the latest first."""
        found = self._directory.glob(f"*{SUFFIX}")
        return sorted((int(path.stem) for path in found if path.stem.isdigit()), reverse=True)


def _named(state: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a pytree with their paths as names."""
    return [(jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(state)]


def _whole(path: Path) -> bytes | None:
    """The content of a checkpoint without its hash, or None if it cannot be read or the hash is wrong."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[HASH_BYTES:]
    return content if hashlib.sha256(content).digest() == data[:HASH_BYTES] else None


def _like(state: PyTree, arrays: dict[str, np.ndarray], path: Path) -> PyTree:
    """A pytree with the structure of ``state`` and the values of ``arrays``, which were read from ``path``."""
    names = _named(state)
    shapes = {name: (plain(x).shape, plain(x).dtype) for name, x in names}
    if shapes != {name: (x.shape, x.dtype) for name, x in arrays.items()}:
        raise UserError(
            f"{path} was written by another version of efsgd_jax; continue the run with that one, or use another "
            "--workdir"
        )
    # In the host's memory: a state that is divided among devices may be too large for one of them.
    leaves = [typed(arrays[name], x) for name, x in names]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)
