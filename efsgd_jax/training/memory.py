"""Estimates the device memory that a run needs, before anything is allocated."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.synthesizers.base import Phase, Record

GIB = 2**30
# Allowance for activations, the compiled program and a grid of samples.
WORKING_MEMORY = GIB // 2
# An estimate above this number of bytes is printed.
PRINT_ABOVE = GIB


class Needed(NamedTuple):
    """Estimated memory in bytes.

    Attributes:
      state: memory of the training state.
      data: memory of the training records, and of what a phase's ``view`` computes from them before the first step;
        0 if they stay on disk.
      views: bytes of that on disk; 0 if it is in memory.
    """

    state: int
    data: int
    views: int = 0

    @property
    def total(self) -> int:
        return self.state + self.data + WORKING_MEMORY


def estimate(phases: Sequence[Phase], dataset: Dataset) -> Needed:
    """Estimates the memory from shapes alone, for the phase that needs the most; nothing is allocated.

    The state is counted once, because steps overwrite it.
    """
    released: dict[str, Any] = {}
    states, views = [], []
    n = len(dataset.train_labels)
    shapes: list[Any] = [
        jax.ShapeDtypeStruct(dataset.train_images.shape[1:], "uint8"),
        jax.ShapeDtypeStruct((), "int32"),
    ]
    one = Record(*shapes)
    for phase in phases:
        state = jax.eval_shape(phase.init, jax.random.key(0), released)
        before = released
        released = {**released, phase.name: jax.eval_shape(phase.release, state)}
        states.append(_bytes(state))
        views.append(n * _bytes(jax.eval_shape(phase.view, one, before)) if phase.view else 0)
    if dataset.on_disk:
        return Needed(max(states), 0, max(views))
    return Needed(max(states), dataset.train_images.nbytes + dataset.train_labels.nbytes + max(views))


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def available() -> int | None:
    """Free memory of the default device in bytes; None if it is not known."""
    device: Any = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def check(phases: Sequence[Phase], dataset: Dataset, hint: str) -> Needed:
    """Checks that a run fits into the free memory. For a large run it prints the estimate on standard error.

    Args:
      phases: the run's phases.
      dataset: its data set.
      hint: the config keys to lower, for the message.

    Returns:
      The estimate.

    Raises:
      UserError: the device has less free memory than the run needs.
    """
    run, left = estimate(phases, dataset), available()
    if run.total > PRINT_ABOVE:
        print(
            f"memory: about {run.total / GIB:.1f} GiB (training state {run.state / GIB:.1f}, images "
            f"{run.data / GIB:.1f}, working {WORKING_MEMORY / GIB:.1f}); "
            + ("the device does not report its free memory" if left is None else f"{left / GIB:.1f} GiB are free"),
            file=sys.stderr,
        )
    if left is not None and run.total > left:
        raise UserError(
            f"the run needs about {run.total / GIB:.1f} GiB of memory and {left / GIB:.1f} GiB are free; lower {hint}"
        )
    return run
