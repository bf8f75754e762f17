"""Estimates the device memory that a run needs, before anything is allocated."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.privacy.dp_sgd import DpSgdMechanism
from efsgd_jax.synthesizers.base import Phase, Record
from efsgd_jax.training.layout import bytes_of_each, layout

GIB = 2**30
# Allowance for activations, the compiled program and a grid of samples.
WORKING_MEMORY = GIB // 2
# How many times the parameters a step of DP-SGD holds at once: the parts of sums, what devices exchange, the noise.
STEP_COPIES = 8
# An estimate above this number of bytes is printed.
PRINT_ABOVE = GIB


class Needed(NamedTuple):
    """Estimated memory in bytes.

    Attributes:
      state: the whole training state.
      held: what one device holds of it, and what a step of DP-SGD needs beside it, several times the parameters.
      data: memory of the training records, and of what a phase's ``view`` computes from them before the first step;
        0 if they stay on disk.
      views: bytes of that on disk; 0 if it is in memory.
    """

    state: int
    held: int
    data: int
    views: int = 0

    @property
    def total(self) -> int:
        return self.held + self.data + WORKING_MEMORY


def estimate(phases: Sequence[Phase], dataset: Dataset, mesh: Mesh | None, divide_above: int) -> Needed:
    """Estimates the memory from shapes alone, for the phase that needs the most; nothing is allocated.

    The state is counted once, because steps overwrite it. ``mesh`` and ``divide_above`` are those of ``layout``.
    """
    released: dict[str, Any] = {}
    states, held, views = [], [], []
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
        states.append(bytes_of_each(state, None))
        each = bytes_of_each(state, layout(phase, state, mesh, divide_above))
        if isinstance(phase.plan.mechanism, DpSgdMechanism):
            each += STEP_COPIES * bytes_of_each(jax.eval_shape(phase.parameters or phase.release, state), None)
        held.append(each)
        views.append(n * bytes_of_each(jax.eval_shape(phase.view, one, before), None) if phase.view else 0)
    if dataset.on_disk:
        return Needed(max(states), max(held), 0, max(views))
    return Needed(max(states), max(held), dataset.train_images.nbytes + dataset.train_labels.nbytes + max(views))


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


def check(phases: Sequence[Phase], dataset: Dataset, hint: str, mesh: Mesh | None, divide_above: int) -> Needed:
    """Checks that a run fits into the free memory. For a large run it prints the estimate on standard error.

    Args:
      phases: the run's phases.
      dataset: its data set.
      hint: the config keys to lower, for the message.
      mesh: the mesh of its devices, or None.
      divide_above: see ``layout``.

    Returns:
      The estimate.

    Raises:
      UserError: the device has less free memory than the run needs.
    """
    run, left = estimate(phases, dataset, mesh, divide_above), available()
    if run.total > PRINT_ABOVE:
        print(
            f"memory: about {run.total / GIB:.1f} GiB (training state {run.held / GIB:.1f}, images "
            f"{run.data / GIB:.1f}, working {WORKING_MEMORY / GIB:.1f}); "
            + ("the device does not report its free memory" if left is None else f"{left / GIB:.1f} GiB are free"),
            file=sys.stderr,
        )
    if left is not None and run.total > left:
        raise UserError(
            f"the run needs about {run.total / GIB:.1f} GiB of memory and {left / GIB:.1f} GiB are free; lower {hint}"
        )
    return run
