"""``fit``: trains a generator and writes its release to disk."""

import contextlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json
from efsgd_jax.runs.ownership import sole_owner
from efsgd_jax.runs.privacy_report import report_of
from efsgd_jax.runs.publish import publish
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.training import memory
from efsgd_jax.training.brightness import warn_of_brightness
from efsgd_jax.training.devices import from_first, is_first
from efsgd_jax.training.runner import train
from efsgd_jax.training.setup import Setup, prepare
from efsgd_jax.training.trackers import check_trackers


class FitResult(NamedTuple):
    """The directory of a run and what the run spent.

    Attributes:
      workdir: the run's directory.
      steps: number of private steps that were taken, over all phases.
      epsilon: epsilon spent at ``delta``, by PLD; ``inf`` without noise.
      delta: delta of the configuration.
      samples: path of the grid of generated images (PNG) in ``release/``.
      privacy: the privacy report, as in ``release/privacy.json``.
    """

    workdir: Path
    steps: int
    epsilon: float
    delta: float
    samples: Path
    privacy: dict[str, Any]


def fit(
    config: ConfigDict, workdir: str | Path, *, progress: bool = True, trackers: tuple[str, ...] = ("tensorboard",)
) -> FitResult:
    """Trains a run, or continues one that was stopped, to its planned steps or until the target epsilon is spent.

    Args:
      config: the configuration, from ``default_config()`` or a config file.
      workdir: a new or empty directory, or the directory of the same run to continue it.
      progress: whether to show progress on standard error: a bar on a terminal, otherwise plain lines.
      trackers: some of ``tensorboard`` and ``wandb``, which get the losses beside ``private/metrics.jsonl``, in
        ``private/``. Weights & Biases sends them to its server only if the environment has ``WANDB_MODE=online``.

    Returns:
      The result. For a run that is already finished, the result is returned without training.

    Raises:
      UserError: something is wrong; the message, one line, says what it is and what to do. Saved files stay intact.
      Stopped: the process received SIGTERM, as on a preempted machine. A checkpoint was saved, and another call
        continues the run.

    Formal guarantees:
      What is in ``WORKDIR/release`` after ``fit`` is ``(epsilon, delta)``-differentially private with respect to one
      training image with its label, under the report's neighbouring relation, where epsilon is ``result.epsilon``. The
      generator is post-processing of ``result.steps`` releases of the phases' mechanisms; everything else is
      configuration, what the report lists as public, and accounting. There is no guarantee with ``train.seed`` set.
      ``WORKDIR/private`` carries no guarantee.

    Examples:
      >>> from efsgd_jax import default_config
      >>> config = default_config("gaussian_mixture")
      >>> config.method.update(components=1, directions=8, candidates=1)
      >>> result = fit(config, "runs/mixture", progress=False)
      >>> [phase["name"] for phase in result.privacy["phases"]], result.epsilon <= 10
      (['class means', 'basis', 'moments'], True)
    """
    check_trackers(trackers)
    progress = progress and is_first()
    setup = prepare(config, shown=progress)
    report, directory = report_of(setup), Workdir(workdir)
    with contextlib.ExitStack() as stack:
        if not _finished(setup, directory, stack):
            try:
                trained = train(setup, directory, progress, trackers)
                if trained is not None:
                    publish(setup, report, directory, *trained)
                    warn_of_brightness(setup.dataset, trained[1])
            except OSError as error:
                raise UserError(
                    f"cannot write in {directory.root} ({error.strerror or error}); run the same command again to "
                    "continue from the last checkpoint"
                ) from error
    if is_first():
        report = read_json(directory.privacy_json)  # with the noisy queries of a run that was finished before
    return FitResult(
        directory.root, report["steps"], float(report["epsilon"]), report["delta"], directory.samples, report
    )


def _finished(setup: Setup, directory: Workdir, stack: contextlib.ExitStack) -> bool:
    """In the first process, checks the run's directory and prepares it for training.

    If the run is not finished, the first process holds the directory's lock until ``stack`` is closed.

    Returns:
      Whether the run is finished already; the same in every process.
    """
    if is_first():
        identity, needed = setup.identity, memory.Needed(0, 0, 0)
        if not directory.finished:
            divide_above = setup.config.train.divide_above
            needed = memory.check(setup.phases, setup.dataset, setup.memory_hint, setup.mesh, divide_above)
        # Enough for the two checkpoints that are kept, one that is being written and the release, and 32 MiB for logs.
        directory.check(identity, bytes_needed=4 * needed.state + needed.views + 2**25)
        if not directory.finished:
            directory.create()
            stack.enter_context(sole_owner(directory))
            directory.check(identity, bytes_needed=0)  # again: another process may have changed the directory
            directory.record(identity)
            if setup.config.train.seed >= 0 and not directory.finished:
                print("warning: train.seed is set: this run carries NO privacy guarantee", file=sys.stderr)
    return bool(from_first(np.array(directory.finished)))
