"""The runner: takes the steps of all phases in order, saves checkpoints, and writes to the ledger before each block."""

import contextlib
import math
import shutil
from typing import Any

import jax
import numpy as np

from efsgd_jax.errors import Stopped, UserError
from efsgd_jax.images import save_grid
from efsgd_jax.synthesizers.base import Phase, Released
from efsgd_jax.training.charge import Charge
from efsgd_jax.training.checkpoints import Checkpoints
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.devices import from_first, is_first, place, replicate, to_host, zeros_on_host
from efsgd_jax.training.grid import draw_grid
from efsgd_jax.training.layout import layout
from efsgd_jax.training.loop import check_finite, steps_of, warm_up
from efsgd_jax.training.metrics_stream import MetricsStream
from efsgd_jax.training.run_files import RunFiles
from efsgd_jax.training.setup import Setup
from efsgd_jax.training.signals import preemption
from efsgd_jax.training.trackers import make_trackers
from efsgd_jax.training.update import Inputs, keys_of_phase
from efsgd_jax.training.views import records_in_memory, records_on_disk

PyTree = Any


def train(
    setup: Setup, directory: RunFiles, progress: bool, trackers: tuple[str, ...] = ()
) -> tuple[PyTree, np.ndarray] | None:
    """Takes the remaining steps of all phases. Every process takes every step; only the first one writes files.

    Args:
      setup: the run.
      directory: the run's directory.
      progress: whether to show progress.
      trackers: some of ``TRACKERS``, which get the metrics.

    Returns:
      What the last phase releases, and a grid of images generated from it; None in all processes but the first.

    Raises:
      Stopped: SIGTERM was received before the last step; a checkpoint was saved.
      UserError: a parameter is no longer finite, a file is damaged or cannot be written, or there is too little memory.
    """
    try:
        with contextlib.ExitStack() as stack:
            return _Run(setup, directory, progress, stack, trackers).phases()
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise UserError(
            f"memory is not enough: {str(error).splitlines()[0][:200]}; checkpoints are intact; lower a size "
            "in config.method, such as microbatch_size or a width, or config.data.image_size"
        ) from error


def last_state(setup: Setup, directory: RunFiles) -> tuple[int, PyTree, np.ndarray]:
    """What the last phase of a run that was stopped would release at its latest checkpoint.

    Returns:
      The number of private steps that were taken, what would be released, and a grid of images generated from it.

    Raises:
      UserError: the last phase has not taken a step, or a parameter is not finite.
    """
    with contextlib.ExitStack() as stack:
        return _Run(setup, directory, progress=False, stack=stack).last()


class _Run:
    """The state of ``train``: the run's place in its phases, and the open files.

    Its steps are counted through all phases. ``ends`` has the number of the step with which each phase ends,
    ``position`` the number of steps in the checkpoint from which the run is continued (0 for a new run), and ``kept``
    the content of this checkpoint.

    Args:
      setup: the run.
      directory: the run's directory.
      progress: whether to show progress.
      stack: closes the files and restores the signal handler when the run ends.
      trackers: some of ``TRACKERS``, which get the metrics.
    """

    def __init__(
        self,
        setup: Setup,
        directory: RunFiles,
        progress: bool,
        stack: contextlib.ExitStack,
        trackers: tuple[str, ...] = (),
    ):
        self.setup, self.directory, self.progress, self.mesh = setup, directory, progress, setup.mesh
        self.options = setup.config.train
        # All processes use the first one's key. In the others, key(0) is replaced by it; only its shape matters.
        self.root_key = from_first(directory.root_key(self.options.seed) if is_first() else jax.random.key(0))
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
            opened = make_trackers(trackers, directory.trackers, self.position)
            stream = MetricsStream(directory.metrics, self.position, opened)
            self.stream = stack.enter_context(contextlib.closing(stream))
        self.asked_to_end = stack.enter_context(preemption())
        # The steps before ``position`` that read private data; only these are charged.
        taken = sum(
            min(self.position - (end - count), count) if self.position > end - count else 0
            for phase, end, count in zip(setup.phases, self.ends, steps, strict=True)
            if phase.plan.mechanism is not None
        )
        self.charge = Charge(setup.ledger, directory, self.options.log_every, taken)
        self.view: tuple[Any, PyTree] | None = None
        # Processes may share a disk.
        self.views = directory.views.with_name(f"{directory.views.name}_{jax.process_index()}")
        stack.callback(shutil.rmtree, self.views, ignore_errors=True)
        self.draw = jax.jit(setup.generate)

    def _like(self, position: int) -> PyTree:
        """A pytree like a checkpoint at step ``position``: the state of its phase, and what earlier phases released."""
        released: dict[str, PyTree] = {}
        for i, (phase, end) in enumerate(zip(self.setup.phases, self.ends, strict=True)):
            key = keys_of_phase(self.root_key, i).init
            state = jax.eval_shape(phase.init, key, released)
            if position <= end:
                return {"released": released, "state": zeros_on_host(state, key)}
            like = jax.eval_shape(phase.release, state)
            released = {**released, phase.name: zeros_on_host(like, key)}
        raise UserError(f"{self.directory.checkpoints} holds a step that the run does not have; use another --workdir")

    def phases(self) -> tuple[PyTree, np.ndarray] | None:
        """Takes the remaining steps of all phases; see ``train`` for the result."""
        released: dict[str, PyTree] = {}
        private_before = 0
        for i, (phase, end) in enumerate(zip(self.setup.phases, self.ends, strict=True)):
            begin = end - phase.plan.steps
            if self.position <= end:  # else the phase has ended, and the checkpoint has what it released
                state = None
                if self.kept is not None and self.position > begin:
                    released, state = self.kept["released"], self.kept["state"]
                    self.kept = None  # frees its memory once the state is on the devices
                released = {**released, phase.name: self._one(i, phase, begin, private_before, released, state)}
            private_before += phase.plan.steps if phase.plan.mechanism is not None else 0
        if not is_first():
            return None
        final = released[self.setup.phases[-1].name]
        return final, self._grid(final)

    def last(self) -> tuple[int, PyTree, np.ndarray]:
        """See ``last_state``."""
        phases = self.setup.phases
        begin = self.ends[-1] - phases[-1].plan.steps
        if self.kept is None or self.position <= begin:
            taken = next((phase.name for phase, end in zip(phases, self.ends, strict=True) if self.position < end), "")
            raise UserError(
                f"{self.directory.checkpoints} is at step {self.position}, in the phase {taken}; nothing can be "
                f"released before the last phase, {phases[-1].name}, has taken a step and saved it: continue the run"
            )
        state = self.kept["state"]
        check_finite(phases[-1], (phases[-1].parameters or phases[-1].release)(state), self.position - begin)
        released = jax.device_get(phases[-1].release(state))
        return self.charge.taken, released, self._grid(released)

    def _one(
        self, index: int, phase: Phase, begin: int, private_before: int, released: dict[str, PyTree], state: PyTree
    ) -> PyTree:
        """Takes the remaining steps of one phase, and returns what it releases.

        Args:
          index: number of the phase, from 0.
          phase: the phase.
          begin: number of steps of all earlier phases.
          private_before: number of steps of the earlier phases that read private data.
          released: what earlier phases released.
          state: the phase's state in the checkpoint; None to start from its first step.
        """
        start = max(self.position - begin, 0) if state is not None else 0
        keys, options = keys_of_phase(self.root_key, index), self.options
        public = self.setup.public.content if self.setup.public and phase.plan.mechanism is None else None
        records = self._records(phase, keys.arrange, released)
        inputs = replicate(Inputs(keys.access, keys.step, records, released, public), self.mesh)
        placed = self._layout(phase, keys.init, released)
        key = replicate(keys.init, self.mesh)
        state = _init(phase, key, released, placed) if state is None else place(state, placed)
        if start == 0:
            state = warm_up(phase, state, inputs, self.mesh, self.progress)
        rows = steps_of(
            phase, state, inputs, start=start, every=options.log_every, boundaries=[options.grid_every],
            spent=lambda step: self.charge.before(private_before + step) if phase.plan.mechanism else math.nan,
            mesh=self.mesh, shown=self.progress,
        )  # fmt: skip
        last = phase.plan.steps
        with contextlib.closing(rows):
            for step, state, metrics in rows:
                if metrics is not None and self.stream:
                    self.stream.write(begin + step, metrics, phase.name)
                ends_early = self.asked_to_end(begin + step) and begin + step < self.ends[-1]
                if step % options.grid_every == 0 or step == last or ends_early:
                    self._keep(phase, begin + step, step, state, released)
                if ends_early:
                    raise Stopped(
                        f"stopped at step {begin + step} of {self.ends[-1]}; run the same command again to continue"
                    )
        return to_host(phase.release(state))

    def _layout(self, phase: Phase, key: jax.Array, released: Released) -> PyTree | None:
        return layout(phase, jax.eval_shape(phase.init, key, released), self.mesh, self.options.divide_above)

    def _keep(self, phase: Phase, position: int, step: int, state: PyTree, released: dict[str, PyTree]) -> None:
        """Saves a checkpoint after ``step`` steps of the phase and, for the last phase, a grid of generated images."""
        here = to_host(state)
        check_finite(phase, (phase.parameters or phase.release)(here), step)
        if self.checkpoints:
            self.checkpoints.save(position, {"released": released, "state": here})
            shown = phase.release(here)
            if phase is self.setup.phases[-1] and (phase.plan.steps > 1 or len(self.setup.phases) == 1):
                save_grid(self.directory.grids / f"{position:06d}.png", self._grid(shown))
            self.directory.restrict_permissions()

    def _records(self, phase: Phase, key: jax.Array, released: Released) -> PyTree:
        """The views of all records, arranged by the phase's mechanism; None for post-processing.

        The views are kept for the next phase, in case it has the same ``view`` function.
        """
        if phase.plan.mechanism is None:
            return None
        if self.view is None or self.view[0] is not phase.view:
            self.view = None  # frees the memory of the last phase's views before the next ones are computed
            seen = records_on_disk if self.setup.dataset.on_disk else records_in_memory
            self.view = (phase.view, seen(self.setup, phase.view, released, self.views))
        return phase.plan.mechanism.arrange(key, self.view[1])

    def _grid(self, params: PyTree) -> np.ndarray:
        return draw_grid(self.draw, params, self.setup.dataset.spec.num_classes)


def _init(phase: Phase, key: jax.Array, released: dict[str, PyTree], placed: PyTree | None) -> PyTree:
    shardings: dict[str, Any] = {} if placed is None else {"out_shardings": placed}
    return jax.jit(phase.init, compiler_options=compiler_options(), **shardings)(key, released)
