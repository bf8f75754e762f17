"""``fit``: trains a generator and leaves a release on disk."""

import functools
import hashlib
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax.sharding import Mesh
from ml_collections import ConfigDict

from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.methods.synthesizer import Synthesizer
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.runs import memory
from efsgd_jax.runs.checkpoints import Checkpoints
from efsgd_jax.runs.compilation import compiler_options
from efsgd_jax.runs.devices import from_first, is_first, replicate, to_host
from efsgd_jax.runs.files import atomic, read_json, write_json, write_text
from efsgd_jax.runs.images import save_grid
from efsgd_jax.runs.metrics_stream import MetricsStream
from efsgd_jax.runs.release import draw_grid, fingerprints, public_config
from efsgd_jax.runs.report import privacy_report, to_markdown
from efsgd_jax.runs.setup import Setup, identity, mesh_for, prepare
from efsgd_jax.runs.update import dispatches, make_update
from efsgd_jax.runs.workdir import Workdir, plain
from efsgd_jax.settings import method_named

PyTree = Any


class FitResult(NamedTuple):
    """Where a run is and what it spent.

    Attributes:
      workdir: its directory.
      steps: private steps taken.
      epsilon: spent at ``delta``, by PLD; ``inf`` without noise.
      delta: as configured.
      samples: the PNG grid in ``release/``.
      privacy: the whole report, as in ``release/privacy.json``.
    """

    workdir: Path
    steps: int
    epsilon: float
    delta: float
    samples: Path
    privacy: dict[str, Any]


def fit(config: ConfigDict, workdir: str | Path, *, progress: bool = True) -> FitResult:
    """Trains, or continues a killed run, until the planned steps or the target epsilon, whichever comes first.

    Args:
      config: from ``default_config()`` or a recipe.
      workdir: a new or empty directory, or that of the same run.
      progress: show a progress bar on standard error.

    Returns:
      The result; a finished run is reported again without training.

    Raises:
      UserError: one line that says what is wrong and what to do; nothing was written or lost.

    Formal guarantees:
      What is in ``WORKDIR/release`` after ``fit`` is ``(epsilon, delta)``-differentially private with respect to
      adding or removing one training image, where epsilon is ``result.epsilon``: the generator is post-processing of
      ``result.steps`` releases of the mechanism, everything else is configuration, public shape and accounting. Not
      with ``train.seed``. ``WORKDIR/private`` carries no guarantee.
    """
    mesh = mesh_for(config)
    setup = prepare(config, mesh)
    directory = Workdir(workdir)
    finished = False
    if is_first():
        run = identity(plain(config), setup.dataset)
        needed = memory.needed(setup.synthesizer, setup.dataset)
        directory.check(run, bytes_needed=4 * needed.state + 2**25)
        finished = directory.finished
        if not finished:
            memory.check(needed, method_named(config.method.name).memory_hint)
        directory.open(run)
    seeded = config.train.seed >= 0
    if not from_first(np.array(finished)):
        if seeded and is_first():
            print("warning: train.seed is set: this run carries NO privacy guarantee", file=sys.stderr)
        _train(config, setup, directory, progress and is_first(), mesh)
    steps = setup.ledger.steps
    report = (
        read_json(directory.privacy_json) if is_first() else privacy_report(setup.ledger, steps, debugging_seed=seeded)
    )
    return FitResult(
        directory.root, report["steps"], float(report["epsilon"]), report["delta"], directory.samples, report
    )


def _warm_up(synthesizer: Synthesizer, state: PyTree, key: jax.Array, data: PyTree, progress: bool) -> PyTree:
    """What a method wants done before the first step."""
    if not synthesizer.warm_up:
        return state
    warm_up = jax.jit(synthesizer.warm_up, donate_argnums=0, compiler_options=compiler_options())
    for i in tqdm.trange(synthesizer.warm_steps, disable=not progress, desc="warm-up", dynamic_ncols=True):
        state = warm_up(state, jax.random.fold_in(key, i), data)
    return state


def _train(config: ConfigDict, setup: Setup, directory: Workdir, progress: bool, mesh: Mesh | None) -> None:
    """Every process takes every step; the first one keeps the files."""
    dataset, ledger, synthesizer = setup
    # Of the other processes' key only the shape counts: the first one's takes its place.
    root_key = from_first(directory.root_key(config.train.seed) if is_first() else jax.random.key(0))
    init_key, sampling_key, arrange_key, warm_key = jax.random.split(root_key, 4)
    state = jax.jit(synthesizer.init, compiler_options=compiler_options())(init_key)
    checkpoints = Checkpoints(directory.checkpoints) if is_first() else None
    restored = from_first(checkpoints.restore(state) if checkpoints else (0, state))
    start, state = int(restored[0]), restored[1]
    stream = MetricsStream(directory.metrics, directory.tensorboard, start) if is_first() else None
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
    bar = tqdm.tqdm(total=ledger.steps, initial=start, disable=not progress, unit="step", dynamic_ncols=True)
    try:
        since = time.perf_counter()
        step = start
        for count in dispatches(start, ledger.steps, [every, config.train.grid_every]):
            state, metrics = update(count)(state, sampling_key, data)
            step += count
            pending.append(metrics)
            bar.update(count)
            if step % every == 0 or step == ledger.steps:
                values = _mean(pending)
                seconds, since, pending = time.perf_counter() - since, time.perf_counter(), []
                values["images_per_second"] = (
                    values["batch_size"] * (step - _first_of_row(step, every, start)) / seconds
                )
                values["epsilon"] = ledger.spent(step)
                if stream:
                    stream.write(step, values)
                bar.set_postfix_str(_summary(values))
                _check_finite(jax.device_get(state.params), step)
            if step % config.train.grid_every == 0 or step == ledger.steps:
                here = to_host(state)
                _check_finite(here.params, step)
                if checkpoints:
                    checkpoints.save(step, here)
                    save_grid(directory.grids / f"{step:06d}.png", grid(synthesizer.released(here)))
                    directory.seal()
        if is_first():
            params = jax.device_get(synthesizer.released(state))
            _release(config, dataset, ledger, directory, params, grid(params))
    finally:
        bar.close()
        if stream:
            stream.close()
        if checkpoints:
            checkpoints.close()


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
    return f"{losses} | {values['images_per_second']:.0f} images/s | epsilon {values['epsilon']:.3f}"


def _check_finite(params: PyTree, step: int) -> None:
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(params)):
        raise UserError(
            f"the parameters are no longer finite at step {step}; lower the learning rates in config.method and use "
            "another --workdir"
        )


def _release(
    config: ConfigDict, dataset: Dataset, ledger: Ledger, directory: Workdir, params: PyTree, grid: np.ndarray
) -> None:
    """Writes ``release/``, the generator last: its presence says that the rest is complete."""
    spec = dataset.spec
    shape = {"image_size": spec.image_size, "channels": spec.channels, "class_names": list(dataset.class_names)}
    report = privacy_report(ledger, ledger.steps, debugging_seed=config.train.seed >= 0)
    write_json(directory.config, {"config": public_config(plain(config)), "spec": shape})
    write_json(directory.privacy_json, report)
    write_text(directory.privacy_md, to_markdown(report))
    save_grid(directory.samples, grid)
    weights = flax.serialization.to_bytes(jax.device_get(params))
    hashes = {**fingerprints(directory.release), directory.generator.name: hashlib.sha256(weights).hexdigest()}
    write_json(directory.released, hashes, private=True)
    directory.seal()
    with atomic(directory.generator) as temporary:
        temporary.write_bytes(weights)
