"""The training loop: steps, their metrics, checkpoints, and a ledger that is written ahead of them."""

import contextlib
import functools
import math
import time
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from efsgd_jax.errors import Stopped, UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.images import save_grid
from efsgd_jax.synthesizers.base import Synthesizer
from efsgd_jax.training.checkpoints import Checkpoints
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.devices import from_first, is_first, replicate, to_host
from efsgd_jax.training.grid import draw_grid
from efsgd_jax.training.metrics_stream import MetricsStream
from efsgd_jax.training.progress import Progress
from efsgd_jax.training.setup import Setup
from efsgd_jax.training.signals import preemption
from efsgd_jax.training.update import dispatches, make_update

PyTree = Any


class RunFiles(Protocol):
    """What the loop keeps of a run, and where; ``runs.workdir.Workdir`` is one."""

    checkpoints: Path
    metrics: Path
    tensorboard: Path
    grids: Path

    def root_key(self, seed: int) -> jax.Array:
        """The run's secret key."""

    def begin(self, steps: int, epsilon: float, delta: float) -> None:
        """Writes the ledger ahead."""

    def seal(self) -> None:
        """Makes everything private readable to its owner only."""


def _warm_up(synthesizer: Synthesizer, state: PyTree, key: jax.Array, data: PyTree, progress: bool) -> PyTree:
    """What a method wants done before the first step."""
    if not synthesizer.warm_up:
        return state
    warm_up = jax.jit(synthesizer.warm_up, donate_argnums=0, compiler_options=compiler_options())
    with Progress(synthesizer.warm_steps, shown=progress) as shown:
        shown.compiling("the warm-up")
        for i in range(synthesizer.warm_steps):
            state = jax.block_until_ready(warm_up(state, jax.random.fold_in(key, i), data))
            shown.advance(1)
    return state


def train(
    config: ConfigDict, setup: Setup, directory: RunFiles, progress: bool, mesh: Mesh | None
) -> tuple[PyTree, np.ndarray] | None:
    """Takes the steps that are left: every process takes every step, the first one keeps the files.

    Returns:
      What is to be released and a grid of its images; None in all processes but the first.

    Raises:
      Stopped: SIGTERM came before the last step; the state is kept.
      UserError: parameters are no longer finite, a file is damaged, the disk is full, or memory is not enough.
    """
    try:
        with contextlib.ExitStack() as stack:
            return _train(config, setup, directory, progress, mesh, stack)
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise UserError(
            f"memory is not enough: {str(error).splitlines()[0][:200]}; what was kept is intact; lower what "
            "config.method counts, such as microbatch_size or a width, or config.data.image_size"
        ) from error


def _train(
    config: ConfigDict,
    setup: Setup,
    directory: RunFiles,
    progress: bool,
    mesh: Mesh | None,
    stack: contextlib.ExitStack,
) -> tuple[PyTree, np.ndarray] | None:
    dataset, ledger, synthesizer = setup
    # Of the other processes' key only the shape counts: the first one's takes its place.
    root_key = from_first(directory.root_key(config.train.seed) if is_first() else jax.random.key(0))
    init_key, sampling_key, arrange_key, warm_key = jax.random.split(root_key, 4)
    state = jax.jit(synthesizer.init, compiler_options=compiler_options())(init_key)
    checkpoints = Checkpoints(directory.checkpoints) if is_first() else None
    restored = from_first(checkpoints.restore(state) if checkpoints else (0, state))
    start, state = int(restored[0]), restored[1]
    stream = None
    if is_first():
        stream = stack.enter_context(contextlib.closing(MetricsStream(directory.metrics, directory.tensorboard, start)))
    data = synthesizer.arrange(arrange_key, jnp.asarray(dataset.train_images), jnp.asarray(dataset.train_labels))
    state, data, sampling_key = (replicate(x, mesh) for x in (state, data, sampling_key))
    update = functools.cache(functools.partial(make_update, synthesizer, mesh))  # of a number of steps
    if start == 0:
        state = _warm_up(synthesizer, state, warm_key, data, progress)
    draw = jax.jit(synthesizer.generate)

    def grid(params: PyTree) -> np.ndarray:
        return draw_grid(draw, params, dataset.spec.num_classes)

    every = config.train.log_every
    pending: list[dict[str, jax.Array]] = []
    shown = stack.enter_context(Progress(ledger.steps, start, shown=progress))
    asked_to_end = stack.enter_context(preemption())
    since = time.perf_counter()
    blocks = iter(ledger.blocks(every, start))
    step, until, spent = start, start, math.nan
    compiled: set[int] = set()
    for count in dispatches(start, ledger.steps, [every, config.train.grid_every]):
        if step >= until:
            until, spent = next(blocks)
            if is_first():
                directory.begin(until, spent, ledger.delta)
        if count not in compiled:
            shown.compiling("a step" if count == 1 else f"{count} steps")
        state, metrics = update(count)(state, sampling_key, data)
        if count not in compiled:
            jax.block_until_ready(metrics)
            compiled.add(count)
        step += count
        pending.append(metrics)
        shown.advance(count)
        if step % every == 0 or step == ledger.steps:
            values = _mean(pending)
            seconds, since, pending = time.perf_counter() - since, time.perf_counter(), []
            values["images_per_second"] = values["batch_size"] * (step - _first_of_row(step, every, start)) / seconds
            values["epsilon"] = spent
            if stream:
                stream.write(step, values)
            shown.summary(_summary(values))
            _check_finite(jax.device_get(state.params), step)
        ends_early = asked_to_end(step) and step < ledger.steps
        if step % config.train.grid_every == 0 or step == ledger.steps or ends_early:
            here = to_host(state)
            _check_finite(here.params, step)
            if checkpoints:
                checkpoints.save(step, here)
                save_grid(directory.grids / f"{step:06d}.png", grid(synthesizer.released(here)))
                directory.seal()
        if ends_early:
            raise Stopped(f"stopped at step {step} of {ledger.steps}, which is kept; the same command continues")
    if not is_first():
        return None
    params = jax.device_get(synthesizer.released(state))
    return params, grid(params)


def _first_of_row(step: int, every: int, start: int) -> int:
    """The step after which the metrics that are logged at ``step`` begin."""
    return max(start, (step - 1) // every * every)


def _mean(rows: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Mean over steps, of the steps that have the metric (the generator's loss exists every few steps only)."""
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {
        name: float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else math.nan
        for name, column in columns.items()
    }


def _summary(values: dict[str, float]) -> str:
    shown = ("reconstruction", "adversarial", "wasserstein", "classifier", "generator")
    losses = " ".join(f"{name[:5]} {values[name]:.3g}" for name in shown if name in values)
    return f"{losses} | {values['images_per_second']:.0f} images/s | epsilon {format_epsilon(values['epsilon'])}"


def _check_finite(params: PyTree, step: int) -> None:
    broken = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, x in jax.tree_util.tree_leaves_with_path(params)
        if not np.isfinite(x).all()
    ]
    if broken:
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(
            f"{broken[0]}{others} of the parameters are no longer finite at step {step}; nothing is released, and the "
            "last checkpoint is from before; lower the learning rates in config.method and use another --workdir"
        )
