"""Writes metrics as JSON lines and to trackers. Both are private, because they depend on raw examples."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from efsgd_jax.files import write_text
from efsgd_jax.training.trackers import Tracker


class MetricsStream:
    """Appends rows of metrics to ``metrics.jsonl`` and to trackers, such as TensorBoard.

    If an earlier process was killed, its rows after ``first_step`` are removed, because these steps are taken and
    written again.

    Args:
      jsonl: path of ``metrics.jsonl``.
      first_step: number of steps, over all phases, that were taken before; 0 for a new run.
      trackers: open trackers, which are closed with the stream.

    Raises:
      OSError: the disk is full. Every method may raise this.
    """

    def __init__(self, jsonl: Path, first_step: int, trackers: Sequence[Tracker] = ()):
        kept = []
        if jsonl.is_file():
            for line in jsonl.read_text(encoding="utf-8").splitlines():
                row = _parse(line)
                if row is not None and row["step"] <= first_step:
                    kept.append(line + "\n")
        write_text(jsonl, "".join(kept), private=True)
        self._file = jsonl.open("a", encoding="utf-8")
        self._trackers = trackers

    def write(self, step: int, values: dict[str, float], phase: str) -> None:
        """Writes one row. ``step`` is counted through all phases; ``phase`` is the name of the step's phase."""
        finite = {k: v if abs(v) < float("inf") else None for k, v in values.items()}  # JSON has no NaN
        self._file.write(json.dumps({"step": step, "phase": phase, **finite}) + "\n")
        self._file.flush()
        for tracker in self._trackers:
            tracker.write(step, {k: v for k, v in finite.items() if v is not None})

    def close(self) -> None:
        self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # the process was killed while it wrote this line
        return None
