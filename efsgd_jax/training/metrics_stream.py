"""Writes metrics as JSON lines and as TensorBoard events. Both are private, because they depend on raw examples."""

import json
import os
import time
from pathlib import Path
from typing import Any

from efsgd_jax.files import write_text


class MetricsStream:
    """Appends rows of metrics to ``metrics.jsonl`` and to a TensorBoard directory.

    If an earlier process was killed, its rows after ``first_step`` are removed, because these steps are taken and
    written again.

    Args:
      jsonl: path of ``metrics.jsonl``.
      tensorboard: directory of the TensorBoard files.
      first_step: number of steps, over all phases, that were taken before; 0 for a new run.

    Raises:
      OSError: the disk is full. Every method may raise this.
    """

    def __init__(self, jsonl: Path, tensorboard: Path, first_step: int):
        kept = []
        if jsonl.is_file():
            for line in jsonl.read_text(encoding="utf-8").splitlines():
                row = _parse(line)
                if row is not None and row["step"] <= first_step:
                    kept.append(line + "\n")
        write_text(jsonl, "".join(kept), private=True)
        self._file = jsonl.open("a", encoding="utf-8")
        self._board = _Board(tensorboard, first_step)

    def write(self, step: int, values: dict[str, float], phase: str) -> None:
        """Writes one row. ``step`` is counted through all phases; ``phase`` is the name of the step's phase."""
        finite = {k: v if abs(v) < float("inf") else None for k, v in values.items()}  # JSON has no NaN
        self._file.write(json.dumps({"step": step, "phase": phase, **finite}) + "\n")
        self._file.flush()
        self._board.write(step, {k: v for k, v in finite.items() if v is not None})

    def close(self) -> None:
        self._file.close()
        self._board.close()


class _Board:
    """A TensorBoard event file, written synchronously.

    tensorboardX's ``SummaryWriter`` writes in a thread. If that thread ends with an error, such as a full disk or a
    clock that was set back by a month, the run would wait for it forever.
    """

    def __init__(self, directory: Path, first_step: int):
        # Imported only here, because it imports PyTorch where that is installed, which takes two seconds.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._event, self._scalar = event_pb2.Event, summary.scalar
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = event_file_writer.EventsWriter(str(directory / "events"), f".{os.getpid()}.{first_step}")
        if first_step:  # tells TensorBoard to ignore what an earlier process wrote after this step
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.write_event(self._event(wall_time=time.time(), step=first_step + 1, session_log=started))

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # the process was killed while it wrote this line
        return None
