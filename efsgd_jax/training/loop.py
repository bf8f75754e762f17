"""Takes the steps of one phase, averages their metrics, and checks that the parameters stay finite."""

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
from efsgd_jax.training.devices import to_host
from efsgd_jax.training.layout import shardings_of
from efsgd_jax.training.progress import Progress
from efsgd_jax.training.update import Inputs, dispatches, make_update, make_warm_up

PyTree = Any


class Row(NamedTuple):
    """The progress of a phase after one compiled program.

    Attributes:
      step: number of steps of the phase that were taken.
      state: the state after these steps.
      metrics: means of the metrics since the last row of metrics; None if no row is due at this step.
    """

    step: int
    state: PyTree
    metrics: dict[str, float] | None


def warm_up(phase: Phase, state: PyTree, inputs: Inputs, mesh: Mesh | None, shown: bool) -> PyTree:
    """Runs the warm-up of a phase, if it has one, and returns the state after it."""
    if not (phase.warm_up and phase.warm_steps):
        return state
    update = make_warm_up(phase, mesh, placed=shardings_of(state, mesh))
    with Progress(phase.warm_steps, shown=shown, name=f"{phase.name}, warm-up") as progress:
        progress.compiling("the warm-up")
        for i in range(phase.warm_steps):
            # Warm-up steps have negative numbers, so that they share no PRNG key with the steps of the phase.
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
    """Takes the remaining steps of a phase, and yields a row after each compiled program (of one or several steps).

    Args:
      phase: the phase; its plan has the number of steps.
      state: the state after ``start`` steps. Its buffers are overwritten.
      inputs: what all steps read in addition to the state.
      start: number of steps that were taken before.
      every: number of steps between two rows of metrics.
      boundaries: every multiple of each of these numbers is the end of a program.
      spent: ``spent(step)`` is called before step number ``step`` is taken. It charges for the step and returns the
        epsilon that the run may have spent after it.
      mesh: see ``make_update``.
      shown: whether to show progress.

    Raises:
      UserError: a parameter is no longer finite.
    """
    last = phase.plan.steps
    compiled: dict[int, Any] = {}
    pending: list[dict[str, jax.Array]] = []
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(last, start, shown=shown, name=phase.name))
        step, since = start, time.perf_counter()  # since: when the steps of the present row of metrics began
        for count in dispatches(start, last, [every, *boundaries], loops_on_cpu=phase.loops_on_cpu):
            if count not in compiled:
                progress.compiling("a step" if count == 1 else f"{count} steps")
                # Tracing comes before charging: a step with an undeclared release raises an error here.
                lowered = make_update(phase, mesh, count, placed=shardings_of(state, mesh)).lower(
                    state, jnp.int32(step), inputs
                )
                compiled[count] = lowered.compile()
                progress.compiled()
            epsilon = spent(step)
            state, metrics = compiled[count](state, jnp.int32(step), inputs)
            step += count
            # Programs are dispatched ahead of their execution; the remaining time is estimated from executed ones.
            pending.append(jax.block_until_ready(metrics))
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
            check_finite(phase, to_host(_parameters(phase, state)), step)
            yield Row(step, state, values)


def _parameters(phase: Phase, state: PyTree) -> PyTree:
    return (phase.parameters or phase.release)(state)


def _first_of_row(step: int, every: int, start: int) -> int:
    """Number of steps that were taken before the first step of the row of metrics that ends at ``step``."""
    return max(start, (step - 1) // every * every)


def _mean(rows: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Mean of each metric over the steps that have it (the generator's loss, for instance, is NaN in other steps)."""
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
    """Raises ``UserError``, which names the first parameter that is not finite, if there is one."""
    broken = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, x in jax.tree_util.tree_leaves_with_path(parameters)
        if not np.isfinite(x).all()
    ]
    if broken:
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(
            f"{broken[0]}{others} of the parameters are no longer finite at step {step} of {phase.name}; nothing is "
            "released, and no checkpoint is saved at this step; lower the learning rates in config.method and use "
            "another --workdir"
        )
