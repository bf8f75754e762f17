"""Metrics as JSON lines and as TensorBoard events, both private: they are functions of raw examples."""

import json
from pathlib import Path
from typing import Any

from efsgd_jax.runs.files import write_text


class MetricsStream:
    """Appends to ``metrics.jsonl`` and to a TensorBoard directory; rows after ``first_step`` of an earlier, killed
    process are dropped, because they are about to be written again."""

    def __init__(self, jsonl: Path, tensorboard: Path, first_step: int):
        kept = []
        if jsonl.is_file():
            for line in jsonl.read_text(encoding="utf-8").splitlines():
                row = _parse(line)
                if row is not None and row["step"] <= first_step:
                    kept.append(line + "\n")
        write_text(jsonl, "".join(kept), private=True)
        self._file = jsonl.open("a", encoding="utf-8")
        import tensorboardX  # late: where there is a PyTorch it imports that, which takes two seconds

        self._board = tensorboardX.SummaryWriter(str(tensorboard), purge_step=first_step or None)

    def write(self, step: int, values: dict[str, float]) -> None:
        finite = {k: v if abs(v) < float("inf") else None for k, v in values.items()}  # JSON has no NaN
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # the process was killed while it wrote this line
        return None
