"""What training needs of a run's directory."""

from pathlib import Path
from typing import Protocol

import jax


class RunFiles(Protocol):
    """The paths and operations that training needs of a run's directory; ``runs.workdir.Workdir`` has them.

    Attributes:
      checkpoints: directory of the checkpoints.
      metrics: path of ``metrics.jsonl``.
      trackers: directory in which trackers, such as TensorBoard, have directories of their own.
      grids: directory of the grids of generated images.
      views: directory of what phases read of records that stay on disk.
    """

    checkpoints: Path
    metrics: Path
    trackers: Path
    grids: Path
    views: Path

    def root_key(self, seed: int) -> jax.Array:
        """The run's secret PRNG key."""

    def begin(self, steps: int, epsilon: float, delta: float) -> None:
        """Writes to the ledger that the run may take ``steps`` private steps, which spend ``epsilon``."""

    def restrict_permissions(self) -> None:
        """Makes everything private readable to its owner only."""
