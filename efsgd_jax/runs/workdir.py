"""The directory of a run: ``release/`` holds what may be published, and ``private/`` everything else."""

import contextlib
import hashlib
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.files import TEMPORARY, read_json, remove_temporary, write_json
from efsgd_jax.privacy.keys import fresh_key


class Workdir:
    """The paths in a run's directory, and the operations on it. Nothing under ``private/`` may be published."""

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser()
        self.release = self.root / "release"
        self.private = self.root / "private"
        self.run = self.private / "run.json"
        self.key = self.private / "key.json"
        self.lock = self.private / "lock"  # the file that the process at work in the directory has locked
        self.begun = self.private / "begun.json"  # the ledger, written before each block of steps; see ``begin``
        self.checkpoints = self.private / "checkpoints"
        self.process = self.private / "process.json"  # the process that holds the lock
        self.metrics = self.private / "metrics.jsonl"
        self.trackers = self.private
        self.grids = self.private / "grids"
        self.views = self.private / "views"
        self.scores = self.private / "scores.json"
        self.audit = self.private / "audit.json"
        self.released = self.private / "released.json"  # hashes of release/, as training and queries wrote it
        self.queries = self.private / "queries.json"  # charged queries, with their noisy scores only
        self.config = self.release / "config.json"
        self.privacy_json = self.release / "privacy.json"
        self.privacy_md = self.release / "PRIVACY.md"
        self.generator = self.release / "generator.msgpack"
        self.samples = self.release / "samples.png"
        self.released_scores = self.release / "scores.json"  # only if scores were released by noisy queries

    @property
    def finished(self) -> bool:
        return self.generator.is_file()  # written last

    @property
    def generator_sha256(self) -> str:
        """SHA-256 of the released generator, which scores, audits and samples record to identify it."""
        return hashlib.sha256(self.generator.read_bytes()).hexdigest()

    def check(self, identity: dict[str, Any], bytes_needed: int) -> None:
        """Checks that a run can be started or continued in the directory. Called before anything is written.

        Args:
          identity: the run's configuration and the hash of its data, ``Setup.identity``.
          bytes_needed: the disk space that the run needs.

        Raises:
          UserError: the directory holds something else, or a run with another configuration or other data, or there is
            too little disk space.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"workdir {self.root} is a file; name a directory")
        if self.run.is_file():
            before = read_json(self.run)
            difference = _first_difference(before["config"], identity["config"], "config")
            if not difference and before != identity:  # only the hash or the size of the data differs
                raise UserError(
                    f"workdir {self.root} holds a run on other data: the images, their labels or which of them are "
                    "trained on have changed since; restore the data to continue the run, or use another --workdir"
                )
            if difference:
                raise UserError(
                    f"workdir {self.root} holds a run with another configuration ({difference}); "
                    "use another --workdir, or the same configuration to continue it"
                )
        elif self.root.is_dir() and not self._is_new():
            raise UserError(f"workdir {self.root} is not empty and holds no run; use another --workdir")
        existing = next(p for p in (self.root, *self.root.absolute().parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if free < bytes_needed:
            raise UserError(
                f"workdir {self.root} has {free / 2**20:.0f} MiB of free disk, the run needs about "
                f"{bytes_needed / 2**20:.0f} MiB; free some or use another --workdir"
            )

    def _is_new(self) -> bool:
        """Whether the directory is empty, except for files of a process that was killed before ``record``."""
        inside = [*self.root.iterdir(), *(self.private.iterdir() if self.private.is_dir() else [])]
        return all(p in (self.private, self.lock, self.process) or p.name.endswith(TEMPORARY) for p in inside)

    def create(self) -> None:
        """Creates the run's directory and ``private/``, which only its owner can read."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.private.mkdir(mode=0o700, exist_ok=True)
            self.private.chmod(0o700)
        except OSError as error:
            raise UserError(f"cannot create workdir {self.root} ({error.strerror}); use another --workdir") from error

    def record(self, identity: dict[str, Any]) -> None:
        """Writes what identifies a new run (``Setup.identity``), and removes temporary files of killed processes.

        Only the process that holds the lock may call this.
        """
        for directory in (self.private, self.release, self.grids, self.checkpoints):
            remove_temporary(directory)
        if not self.run.is_file():
            write_json(self.run, identity, private=True)

    def begin(self, steps: int, epsilon: float, delta: float) -> None:
        """Writes to the ledger that, from now on, the run may have taken ``steps`` steps and spent ``epsilon``.

        A run that continues after a kill repeats the steps since its last checkpoint with the same keys. These are the
        same releases, so that they are charged once. The recorded number of steps therefore never decreases, and it is
        not summed over processes.
        """
        before = read_json(self.begun)["steps"] if self.begun.is_file() else 0
        if steps > before:
            value = {"steps": steps, "epsilon": epsilon if math.isfinite(epsilon) else "inf", "delta": delta}
            write_json(self.begun, value, private=True)

    def restrict_permissions(self) -> None:
        """Makes all files under ``private/``, also those that other libraries wrote, readable to their owner only."""
        for path in self.private.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a temporary file that was removed in the meantime
                path.chmod(0o700 if path.is_dir() else 0o600)

    def root_key(self, seed: int) -> jax.Array:
        """The run's secret PRNG key.

        It is made once, from the operating system's random source, and stored in ``private/``, so that a resumed
        run samples the same batches and the same noise. A ``seed`` of at least 0 is used in its place, for debugging
        without a guarantee.

        Raises:
          UserError: the key file is damaged, or is missing although the run has begun.
        """
        if seed >= 0:
            return jax.random.key(seed)
        if not self.key.is_file():
            if self.begun.is_file():
                raise UserError(
                    f"{self.key} is missing, and the run has begun: with another key its steps would be taken, and "
                    "spent, twice; restore the file from a copy, or start again in another --workdir"
                )
            write_json(self.key, np.asarray(jax.random.key_data(fresh_key())).tolist(), private=True)
        words = read_json(self.key)
        if not (isinstance(words, list) and len(words) == 2 and all(type(w) is int and 0 <= w < 2**32 for w in words)):
            raise UserError(f"{self.key} is damaged; restore it from a copy, or start again in another --workdir")
        return jax.random.wrap_key_data(jnp.array(words, jnp.uint32), impl="threefry2x32")


def _first_difference(old: Any, new: Any, where: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            difference = _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
            if difference:
                return difference
        return ""
    return "" if old == new else f"{where} was {old}, now {new}"
