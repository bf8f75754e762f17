"""``fit``: trains a generator and writes its release to disk."""

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np
from ml_collections import ConfigDict

from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic, read_json, write_json, write_text
from efsgd_jax.images import save_grid
from efsgd_jax.runs.ownership import sole_owner
from efsgd_jax.runs.privacy_report import privacy_report, public_facts, to_markdown
from efsgd_jax.runs.release import fingerprints, public_config
from efsgd_jax.runs.workdir import Workdir, plain
from efsgd_jax.synthesizers import method_named
from efsgd_jax.training import memory
from efsgd_jax.training.devices import from_first, is_first
from efsgd_jax.training.runner import train
from efsgd_jax.training.setup import Setup, identity, prepare

PyTree = Any


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


def fit(config: ConfigDict, workdir: str | Path, *, progress: bool = True) -> FitResult:
    """Trains a run, or continues one that was stopped, to its planned steps or until the target epsilon is spent.

    Args:
      config: the configuration, from ``default_config()`` or a config file.
      workdir: a new or empty directory, or the directory of the same run to continue it.
      progress: whether to show progress on standard error: a bar on a terminal, otherwise plain lines.

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
    progress = progress and is_first()
    setup = prepare(config, shown=progress)
    directory = Workdir(workdir)
    seeded = config.train.seed >= 0
    with contextlib.ExitStack() as stack:
        if not from_first(np.array(is_first() and _enter(config, setup, directory, stack))):
            if seeded and is_first():
                print("warning: train.seed is set: this run carries NO privacy guarantee", file=sys.stderr)
            try:
                trained = train(config, setup, directory, progress)
                if trained is not None:
                    _release(config, setup, directory, *trained)
            except OSError as error:
                raise UserError(
                    f"cannot write in {directory.root} ({error.strerror or error}); run the same command again to "
                    "continue from the last checkpoint"
                ) from error
    steps = setup.ledger.steps
    report = (
        read_json(directory.privacy_json)
        if is_first()
        else privacy_report(setup.ledger, steps, debugging_seed=seeded, public=_public(config, setup.dataset))
    )
    return FitResult(
        directory.root, report["steps"], float(report["epsilon"]), report["delta"], directory.samples, report
    )


def _enter(config: ConfigDict, setup: Setup, directory: Workdir, stack: contextlib.ExitStack) -> bool:
    """Checks the run's directory and prepares it for training.

    If the run is not finished, this process holds the directory's lock until ``stack`` is closed.

    Returns:
      Whether the run is finished already.
    """
    needed = memory.needed(setup.phases, setup.dataset)
    run = identity(plain(config), setup.dataset)
    directory.check(run, bytes_needed=4 * needed.state + 2**25)
    if directory.finished:
        return True
    memory.check(needed, method_named(config.method.name).memory_hint)
    directory.create()
    stack.enter_context(sole_owner(directory))
    directory.check(run, bytes_needed=0)  # again: before it was locked, another process may have changed the directory
    directory.record(run)
    return directory.finished


def _shape(dataset: Dataset) -> dict[str, Any]:
    spec = dataset.spec
    return {"image_size": spec.image_size, "channels": spec.channels, "class_names": list(dataset.class_names)}


def _public(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    return public_facts(len(dataset.train_labels), _shape(dataset), config.data.value_range)


def _release(config: ConfigDict, setup: Setup, directory: Workdir, params: PyTree, grid: np.ndarray) -> None:
    """Writes the files of ``release/``. The generator is written last: a run that has one is finished."""
    dataset, ledger = setup.dataset, setup.ledger
    seeded = config.train.seed >= 0
    report = privacy_report(ledger, ledger.steps, debugging_seed=seeded, public=_public(config, dataset))
    write_json(directory.config, {"config": public_config(plain(config)), "spec": _shape(dataset)})
    write_json(directory.privacy_json, report)
    write_text(directory.privacy_md, to_markdown(report))
    save_grid(directory.samples, grid)
    weights = flax.serialization.to_bytes(jax.device_get(params))
    hashes = {**fingerprints(directory.release), directory.generator.name: hashlib.sha256(weights).hexdigest()}
    write_json(directory.released, hashes, private=True)
    directory.seal()
    with atomic(directory.generator) as temporary:
        temporary.write_bytes(weights)
