"""A run on disk: what may be published in ``release/``, everything else in ``private/``."""

import contextlib
import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.keys import fresh_key
from efsgd_jax.runs.files import read_json, write_json


class Workdir:
    """The layout of a run's directory; nothing under ``private`` may be published."""

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser()
        self.release = self.root / "release"
        self.private = self.root / "private"
        self.run = self.private / "run.json"
        self.key = self.private / "key.json"
        self.checkpoints = self.private / "checkpoints"
        self.metrics = self.private / "metrics.jsonl"
        self.tensorboard = self.private / "tensorboard"
        self.grids = self.private / "grids"
        self.scores = self.private / "scores.json"
        self.audit = self.private / "audit.json"
        self.released = self.private / "released.json"  # hashes of the files of release/, as training wrote them
        self.queries = self.private / "queries.json"  # scores that were paid for; holds no score without noise
        self.config = self.release / "config.json"
        self.privacy_json = self.release / "privacy.json"
        self.privacy_md = self.release / "PRIVACY.md"
        self.generator = self.release / "generator.msgpack"
        self.samples = self.release / "samples.png"
        self.released_scores = self.release / "scores.json"  # only if some were released through noisy queries

    @property
    def finished(self) -> bool:
        return self.generator.is_file()  # written last

    @property
    def generator_sha256(self) -> str:
        """What scores, audits and samples are of."""
        return hashlib.sha256(self.generator.read_bytes()).hexdigest()

    def check(self, identity: dict[str, Any], bytes_needed: int) -> None:
        """Nothing is written before this has passed.

        Raises:
          UserError: the directory holds something else, a run of another configuration or other data, or the disk
            is too full.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"workdir {self.root} is a file; name a directory")
        if self.run.is_file():
            difference = _first_difference(read_json(self.run), identity, "")
            if difference:
                raise UserError(
                    f"workdir {self.root} holds a run with another configuration ({difference}); "
                    "use another --workdir, or the same configuration to continue it"
                )
        elif self.root.is_dir() and any(self.root.iterdir()):
            raise UserError(f"workdir {self.root} is not empty and holds no run; use another --workdir")
        existing = next(p for p in (self.root, *self.root.absolute().parents) if p.exists())
        free = shutil.disk_usage(existing).free
        if free < bytes_needed:
            raise UserError(
                f"workdir {self.root} has {free / 2**20:.0f} MiB of free disk, the run needs about "
                f"{bytes_needed / 2**20:.0f} MiB; free some or use another --workdir"
            )

    def open(self, identity: dict[str, Any]) -> None:
        """Creates the directories, ``private/`` for its owner only, and records what the run is."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.private.mkdir(mode=0o700, exist_ok=True)
            self.private.chmod(0o700)
        except OSError as error:
            raise UserError(f"cannot create workdir {self.root} ({error.strerror}); use another --workdir") from error
        if not self.run.is_file():
            write_json(self.run, identity, private=True)

    def seal(self) -> None:
        """Makes everything under ``private`` readable to its owner only, also what libraries wrote there."""
        for path in self.private.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a temporary file
                path.chmod(0o700 if path.is_dir() else 0o600)

    def root_key(self, seed: int) -> jax.Array:
        """The run's secret key: made once from the system's entropy, kept in ``private/`` so that a resumed run draws
        the same batches and the same noise. A ``seed`` of at least 0 replaces it, for debugging."""
        if seed >= 0:
            return jax.random.key(seed)
        if not self.key.is_file():
            write_json(self.key, np.asarray(jax.random.key_data(fresh_key())).tolist(), private=True)
        words = jnp.array(read_json(self.key), jnp.uint32)
        return jax.random.wrap_key_data(words, impl="threefry2x32")


def plain(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON has it; infinity, which JSON lacks, as the string "inf"."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        return "inf" if isinstance(value, float) and math.isinf(value) else value

    return json.loads(json.dumps(convert(config.to_dict())))


def _first_difference(old: Any, new: Any, where: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            difference = _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
            if difference:
                return difference
        return ""
    return "" if old == new else f"{where} was {old}, now {new}"
