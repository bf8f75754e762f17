"""The runner: the phases of a run one after the other, with checkpoints in each and a ledger written ahead of all."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from efsgd_jax.errors import Stopped, UserError
from efsgd_jax.images import save_grid
from efsgd_jax.privacy import Composition, Ledger
from efsgd_jax.synthesizers.base import Phase, Record
from efsgd_jax.training.checkpoints import Checkpoints
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.devices import from_first, is_first, replicate, to_host
from efsgd_jax.training.grid import draw_grid
from efsgd_jax.training.loop import check_finite, steps_of, warm_up
from efsgd_jax.training.metrics_stream import MetricsStream
from efsgd_jax.training.setup import Setup
from efsgd_jax.training.signals import preemption
from efsgd_jax.training.update import Inputs, keys_of_phase

PyTree = Any
# Records that a phase's view is computed of at one time.
VIEW_CHUNK = 500


class RunFiles(Protocol):
    """What the runner keeps of a run, and where; ``runs.workdir.Workdir`` is one."""

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


def train(
    config: ConfigDict, setup: Setup, directory: RunFiles, progress: bool, mesh: Mesh | None
) -> tuple[PyTree, np.ndarray] | None:
    """Runs what is left of all phases: every process takes every step, the first one keeps the files.

    Returns:
      What is to be released and a grid of its images; None in all processes but the first.

    Raises:
      Stopped: SIGTERM came before the last step; the state is kept.
      UserError: parameters are no longer finite, a file is damaged, the disk is full, or memory is not enough.
    """
    try:
        with contextlib.ExitStack() as stack:
            return _Run(config, setup, directory, progress, mesh, stack).phases()
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise UserError(
            f"memory is not enough: {str(error).splitlines()[0][:200]}; what was kept is intact; lower what "
            "config.method counts, such as microbatch_size or a width, or config.data.image_size"
        ) from error


class _Charge:
    """Writes the ledger ahead of the steps of all phases.

    Args:
      ledger: of the run.
      directory: where it is written, by the first process.
      every: steps between blocks.
      taken: private steps that were taken before.
    """

    def __init__(self, ledger: Ledger[Composition], directory: RunFiles, every: int, taken: int):
        ends = np.cumsum([count for _, _, count in ledger.mechanism.taken(ledger.steps)])
        self._blocks = iter(ledger.blocks(every, taken, [int(end) for end in ends]))
        self._ledger, self._directory = ledger, directory
        self._until, self._spent = taken, math.nan

    def before(self, step: int) -> float:
        """Charges for private step ``step``, counted from 0 through all phases: the epsilon that it may bring."""
        if step >= self._until:
            self._until, self._spent = next(self._blocks)
            if is_first():
                self._directory.begin(self._until, self._spent, self._ledger.delta)
        return self._spent


class _Run:
    def __init__(
        self,
        config: ConfigDict,
        setup: Setup,
        directory: RunFiles,
        progress: bool,
        mesh: Mesh | None,
        stack: contextlib.ExitStack,
    ):
        self.config, self.setup, self.directory, self.progress, self.mesh = config, setup, directory, progress, mesh
        # Of the other processes' key only the shape counts: the first one's takes its place.
        self.root_key = from_first(directory.root_key(config.train.seed) if is_first() else jax.random.key(0))
        steps = [phase.plan.steps for phase in setup.phases]
        self.ends = [int(end) for end in np.cumsum(steps)]
        self.checkpoints = Checkpoints(directory.checkpoints) if is_first() else None
        position, kept = self.checkpoints.restore(self._like) if self.checkpoints else (0, None)
        self.position = int(from_first(np.array(position)))
        self.kept = None
        if self.position:
            self.kept = from_first(kept if is_first() else self._like(self.position))
        self.stream = None
        if is_first():
            stream = MetricsStream(directory.metrics, directory.tensorboard, self.position)
            self.stream = stack.enter_context(contextlib.closing(stream))
        self.asked_to_end = stack.enter_context(preemption())
        taken = sum(
            min(self.position - (end - count), count) if self.position > end - count else 0
            for phase, end, count in zip(setup.phases, self.ends, steps, strict=True)
            if phase.plan.mechanism is not None
        )
        self.charge = _Charge(setup.ledger, directory, config.train.log_every, taken)
        self.view: tuple[Any, PyTree] | None = None
        self.draw = jax.jit(setup.generate)

    def _like(self, position: int) -> PyTree:
        """What a checkpoint at ``position`` holds: a state of its phase, and what was released before."""
        released: dict[str, PyTree] = {}
        for i, (phase, end) in enumerate(zip(self.setup.phases, self.ends, strict=True)):
            key = keys_of_phase(self.root_key, i).init
            if position <= end:
                return {"released": released, "state": _init(phase, key, released)}
            state = jax.eval_shape(phase.init, key, released)
            like = jax.eval_shape(phase.release, state)
            released = {**released, phase.name: jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)}
        raise UserError(f"{self.directory.checkpoints} holds a step that the run does not have; use another --workdir")

    def phases(self) -> tuple[PyTree, np.ndarray] | None:
        released: dict[str, PyTree] = {}
        private_before = 0
        for i, (phase, end) in enumerate(zip(self.setup.phases, self.ends, strict=True)):
            begin = end - phase.plan.steps
            if self.position <= end:  # what others released is in the checkpoint of a later one
                state = None
                if self.kept is not None and self.position > begin:
                    released, state = self.kept["released"], self.kept["state"]
                released = {**released, phase.name: self._one(i, phase, begin, private_before, released, state)}
            private_before += phase.plan.steps if phase.plan.mechanism is not None else 0
        if not is_first():
            return None
        final = released[self.setup.phases[-1].name]
        return final, self._grid(final)

    def _one(
        self, index: int, phase: Phase, begin: int, private_before: int, released: dict[str, PyTree], state: PyTree
    ) -> PyTree:
        """Runs one phase from where it is: what it releases."""
        start = max(self.position - begin, 0) if state is not None else 0
        keys, config = keys_of_phase(self.root_key, index), self.config.train
        inputs = replicate(Inputs(keys.access, keys.step, self._records(phase, keys.arrange), released), self.mesh)
        if state is None:
            state = _init(phase, keys.init, released)
        state = replicate(state, self.mesh)
        if start == 0:
            state = warm_up(phase, state, inputs, self.mesh, self.progress)
        rows = steps_of(
            phase, state, inputs, start=start, every=config.log_every, boundaries=[config.grid_every],
            spent=lambda step: self.charge.before(private_before + step) if phase.plan.mechanism else math.nan,
            mesh=self.mesh, shown=self.progress,
        )  # fmt: skip
        last = phase.plan.steps
        with contextlib.closing(rows):
            for step, state, metrics in rows:
                if metrics is not None and self.stream:
                    self.stream.write(begin + step, metrics, phase.name)
                ends_early = self.asked_to_end(begin + step) and begin + step < self.ends[-1]
                if step % config.grid_every == 0 or step == last or ends_early:
                    self._keep(phase, begin + step, step, state, released)
                if ends_early:
                    raise Stopped(
                        f"stopped at step {begin + step} of {self.ends[-1]}, which is kept; the same command continues"
                    )
        return jax.device_get(phase.release(state))

    def _keep(self, phase: Phase, position: int, step: int, state: PyTree, released: dict[str, PyTree]) -> None:
        here = to_host(state)
        check_finite(phase, (phase.parameters or phase.release)(here), step)
        if self.checkpoints:
            self.checkpoints.save(position, {"released": released, "state": here})
            shown = phase.release(here)
            if phase is self.setup.phases[-1] and (phase.plan.steps > 1 or len(self.setup.phases) == 1):
                save_grid(self.directory.grids / f"{position:06d}.png", self._grid(shown))
            self.directory.seal()

    def _records(self, phase: Phase, key: jax.Array) -> PyTree:
        """What the phase's steps read of all records; computed once for phases with the same view."""
        if phase.plan.mechanism is None:
            return None
        data = self.setup.dataset
        if self.view is None or self.view[0] is not phase.view:
            records = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels, jnp.int32))
            self.view = None  # before the next one takes memory
            rows = view_all(phase.view, records) if phase.view else records
            self.view = (phase.view, rows)
        return phase.plan.mechanism.arrange(key, self.view[1])

    def _grid(self, params: PyTree) -> np.ndarray:
        return draw_grid(self.draw, params, self.setup.dataset.spec.num_classes)


def view_all(view: Callable[[Record], PyTree], records: Record) -> PyTree:
    """``view`` of every record, a few at a time."""
    over_all = jax.jit(lambda r: jax.lax.map(view, r, batch_size=VIEW_CHUNK), compiler_options=compiler_options())
    return over_all(records)


def _init(phase: Phase, key: jax.Array, released: dict[str, PyTree]) -> PyTree:
    return jax.jit(phase.init, compiler_options=compiler_options())(key, released)
