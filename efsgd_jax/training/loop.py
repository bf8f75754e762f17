"""The steps of one phase: their metrics, and whether the parameters are still finite."""

import contextlib
import math
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.synthesizers.base import Phase
from efsgd_jax.training.progress import Progress
from efsgd_jax.training.update import Inputs, dispatches, make_update, make_warm_up

PyTree = Any


class Row(NamedTuple):
    """Where a phase is after some steps: ``step`` of it, its ``state``, and means of ``metrics`` if a row is due."""

    step: int
    state: PyTree
    metrics: dict[str, float] | None


def warm_up(phase: Phase, state: PyTree, inputs: Inputs, mesh: Mesh | None, shown: bool) -> PyTree:
    """What a phase wants done before its first step."""
    if not (phase.warm_up and phase.warm_steps):
        return state
    update = make_warm_up(phase, mesh)
    with Progress(phase.warm_steps, shown=shown, name=f"{phase.name}, warm-up") as progress:
        progress.compiling("the warm-up")
        for i in range(phase.warm_steps):
            # Numbered backwards from the first step: no key is used twice.
            state = jax.block_until_ready(update(state, jnp.int32(i - phase.warm_steps), inputs))
            progress.advance(1)
    return state


def steps_of(
    phase: Phase,
    state: PyTree,
    inputs: Inputs,
    *,
    start: int,
    every: int,
    boundaries: list[int],
    spent: Callable[[int], float],
    mesh: Mesh | None,
    shown: bool,
) -> Generator[Row]:
    """Takes the steps of a phase that are left, and yields after each program.

    Args:
      phase: with its plan's steps.
      state: after ``start`` steps. It is overwritten.
      inputs: of all steps.
      start: steps that were taken before.
      every: steps between rows of metrics.
      boundaries: a program ends at each multiple of each of them.
      spent: ``spent(step)`` is called before that step may be taken, and returns the epsilon that is charged for it.
      mesh: see ``make_update``.
      shown: whether to show progress.

    Raises:
      UserError: parameters are no longer finite.
    """
    last = phase.plan.steps
    compiled: dict[int, Any] = {}
    pending: list[dict[str, jax.Array]] = []
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(last, start, shown=shown, name=phase.name))
        step, since = start, time.perf_counter()
        for count in dispatches(start, last, [every, *boundaries]):
            if count not in compiled:
                progress.compiling("a step" if count == 1 else f"{count} steps")
                # Traced here, before anything is charged: a step that releases what it must not is never taken.
                lowered = make_update(phase, mesh, count).lower(state, jnp.int32(step), inputs)
                compiled[count] = lowered.compile()
                progress.compiled()
            epsilon = spent(step)
            state, metrics = compiled[count](state, jnp.int32(step), inputs)
            step += count
            pending.append(metrics)
            progress.advance(count)
            if step % every and step != last:
                yield Row(step, state, None)
                continue
            values = _mean(pending)
            seconds, since, pending = time.perf_counter() - since, time.perf_counter(), []
            if "batch_size" in values:
                steps = step - _first_of_row(step, every, start)
                values["images_per_second"] = values["batch_size"] * steps / seconds
            if phase.plan.mechanism is not None:
                values["epsilon"] = epsilon
            progress.summary(_summary(phase, values))
            check_finite(phase, jax.device_get(_parameters(phase, state)), step)
            yield Row(step, state, values)


def _parameters(phase: Phase, state: PyTree) -> PyTree:
    return (phase.parameters or phase.release)(state)


def _first_of_row(step: int, every: int, start: int) -> int:
    """The step after which the metrics that are logged at ``step`` begin."""
    return max(start, (step - 1) // every * every)


def _mean(rows: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Mean over steps, of the steps that have the metric (the generator's loss exists every few steps only)."""
    if not rows or not rows[0]:
        return {}
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {
        name: float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else math.nan
        for name, column in columns.items()
    }


def _summary(phase: Phase, values: dict[str, float]) -> str:
    parts = [
        " ".join(f"{name} {values[name]:.3g}" for name in phase.shown if not math.isnan(values.get(name, math.nan)))
    ]
    if "images_per_second" in values:
        parts.append(f"{values['images_per_second']:.0f} images/s")
    if "epsilon" in values:
        parts.append(f"epsilon {format_epsilon(values['epsilon'])}")
    return " | ".join(part for part in parts if part)


def check_finite(phase: Phase, parameters: PyTree, step: int) -> None:
    """Raises ``UserError`` with the first parameter that is not finite."""
    broken = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, x in jax.tree_util.tree_leaves_with_path(parameters)
        if not np.isfinite(x).all()
    ]
    if broken:
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(
            f"{broken[0]}{others} of the parameters are no longer finite at step {step} of {phase.name}; nothing is "
            "released, and the last checkpoint is from before; lower the learning rates in config.method and use "
            "another --workdir"
        )
