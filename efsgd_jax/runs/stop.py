"""``stop``: ends a training run before its last step and, if asked, releases what it has learned."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from efsgd_jax.config import config_from
from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.runs.ownership import process_of, sole_owner
from efsgd_jax.runs.privacy_report import report_of
from efsgd_jax.runs.publish import publish
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.training.runner import last_state
from efsgd_jax.training.setup import Setup, prepare

# Seconds between two looks at whether the process has ended.
PAUSE = 0.2


def stop(workdir: str | Path, *, release: bool = False, timeout: float = 600.0) -> dict[str, Any] | None:
    """Ends the process that trains a run, after its present step, and optionally releases the run.

    The process saves a checkpoint first. Without ``release`` the run can be continued by the same command as before.
    With ``release`` it is finished: the generator after the last saved step is published, at the epsilon spent by then.

    Args:
      workdir: the directory of a run that is not finished.
      release: whether to publish what was learned so far.
      timeout: seconds to wait for the process to end.

    Returns:
      The privacy report of what was released; None without ``release``.

    Raises:
      UserError: there is no such run, or it is finished; its process is on another machine or does not end in time; or
        nothing can be released yet, because the last phase has not taken a step.

    Formal guarantees:
      The release is that of the mechanisms' outputs up to the step in the report, and post-processing of them. The
      epsilon of these steps holds if the time to stop was chosen independently of the images, such as by a deadline. If
      it was chosen by looking at losses or pictures, the epsilon of all planned steps holds; the report states it too.
    """
    directory = Workdir(workdir)
    if not directory.run.is_file():
        raise UserError(f"{directory.root} holds no run; name the --workdir of one")
    if directory.finished:
        raise UserError(f"the run in {directory.root} is finished; there is nothing to stop")
    process = process_of(directory)
    if process:
        _end(directory, process, timeout)
    elif not release:
        raise UserError(f"no process trains the run in {directory.root}; --release ends it at its last checkpoint")
    return _release(directory) if release else None


def _end(directory: Workdir, process: dict[str, Any], timeout: float) -> None:
    """Sends SIGTERM to the process and waits until it has released the lock."""
    if process["host"] != socket.gethostname():
        raise UserError(f"the run is trained on {process['host']}; run this command there")
    os.kill(process["pid"], signal.SIGTERM)
    until = time.monotonic() + timeout
    while process_of(directory):
        if time.monotonic() > until:
            raise UserError(f"process {process['pid']} has not ended after {timeout:g} seconds; try again later")
        time.sleep(PAUSE)
    if directory.finished:
        raise UserError(f"the run in {directory.root} took its last step in the meantime and is finished")


def _release(directory: Workdir) -> dict[str, Any]:
    setup = prepare(config_from(read_json(directory.run)["config"]))
    directory.check(setup.identity, bytes_needed=0)
    with sole_owner(directory):
        position, params, grid = last_state(setup, directory)
        report = stopped_report(setup, position)
        publish(setup, report, directory, params, np.asarray(grid))
    jax.clear_caches()
    return report


def stopped_report(setup: Setup, steps: int) -> dict[str, Any]:
    """The privacy report after ``steps`` private steps, with a sentence about the steps that were left out."""
    report, whole = report_of(setup, steps), report_of(setup)
    if steps < whole["steps"]:
        report["caveats"].append(
            f"Training was stopped after {steps} of {whole['steps']} private steps. If the time to stop was chosen by "
            "looking at what depends on the images, such as losses or pictures, the guarantee is that of all planned "
            f"steps, with epsilon {format_epsilon(float(whole['epsilon']))}."
        )
    return report
