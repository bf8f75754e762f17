"""``fit``: trains a generator and leaves a release on disk."""

import contextlib
import hashlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np
from ml_collections import ConfigDict

from efsgd_jax.config import validate
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
from efsgd_jax.training.progress import say
from efsgd_jax.training.runner import train
from efsgd_jax.training.setup import Setup, identity, mesh_for, prepare

PyTree = Any


class FitResult(NamedTuple):
    """Where a run is and what it spent.

    Attributes:
      workdir: its directory.
      steps: private steps taken, through all phases.
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
      config: from ``default_config()`` or a config.
      workdir: a new or empty directory, or that of the same run.
      progress: show what is being done on standard error: a bar on a terminal, else plain lines.

    Returns:
      The result; a finished run is reported again without training.

    Raises:
      UserError: one line that says what is wrong and what to do; nothing was lost.
      Stopped: the process was told to end by SIGTERM, as on a preempted machine; the state is kept, and another call
        continues.

    Formal guarantees:
      What is in ``WORKDIR/release`` after ``fit`` is ``(epsilon, delta)``-differentially private with respect to one
      training image with its label, under the report's neighbouring relation, where epsilon is ``result.epsilon``: the
      generator is post-processing of ``result.steps`` releases of the phases' mechanisms, everything else is
      configuration, what the report lists as public, and accounting. Not with ``train.seed``. ``WORKDIR/private``
      carries no guarantee.

    Examples:
      >>> from efsgd_jax import default_config
      >>> config = default_config("gaussian_mixture")
      >>> config.method.update(components=1, directions=8, candidates=1)
      >>> result = fit(config, "runs/mixture", progress=False)
      >>> [phase["name"] for phase in result.privacy["phases"]], result.epsilon <= 10
      (['class means', 'basis', 'moments'], True)
    """
    validate(config)
    mesh = mesh_for(config)
    say("reading the data, solving for the noise", shown=progress and is_first())
    setup = prepare(config, mesh)
    directory = Workdir(workdir)
    seeded = config.train.seed >= 0
    with contextlib.ExitStack() as stack:
        if not from_first(np.array(is_first() and _enter(config, setup, directory, stack))):
            if seeded and is_first():
                print("warning: train.seed is set: this run carries NO privacy guarantee", file=sys.stderr)
            try:
                trained = train(config, setup, directory, progress and is_first(), mesh)
                if trained is not None:
                    _release(config, setup, directory, *trained)
            except OSError as error:
                raise UserError(
                    f"cannot write in {directory.root} ({error.strerror or error}); the same command continues from "
                    "the last checkpoint"
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
    """Whether the run is finished; if it is not, this process owns the directory until ``stack`` ends."""
    run = identity(plain(config), setup.dataset)
    needed = memory.needed(setup.phases, setup.dataset)
    directory.check(run, bytes_needed=4 * needed.state + 2**25)
    if directory.finished:
        return True
    memory.check(needed, method_named(config.method.name).memory_hint)
    directory.create()
    stack.enter_context(sole_owner(directory))
    directory.check(run, bytes_needed=0)  # again: until now another process may have been at work here
    directory.record(run)
    return directory.finished


def _shape(dataset: Dataset) -> dict[str, Any]:
    spec = dataset.spec
    return {"image_size": spec.image_size, "channels": spec.channels, "class_names": list(dataset.class_names)}


def _public(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    return public_facts(len(dataset.train_labels), _shape(dataset), config.data.value_range)


def _release(config: ConfigDict, setup: Setup, directory: Workdir, params: PyTree, grid: np.ndarray) -> None:
    """Writes ``release/``, the generator last: its presence says that the rest is complete."""
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
