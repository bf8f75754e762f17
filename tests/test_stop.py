"""A run can be stopped at any step, continued, or released at the epsilon that it has spent by then."""

import json
import os
import subprocess
import sys
import time

import pytest

from efsgd_jax import fit, sample
from efsgd_jax.cli.stop import main as stop_command
from efsgd_jax.errors import UserError
from efsgd_jax.runs.ownership import process_of, sole_owner
from efsgd_jax.runs.release import pack
from efsgd_jax.runs.stop import stop
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.training.setup import prepare

FLAGS = [
    "--config=configs/digits.py",
    "--config.train.steps=4000",
    "--config.train.expected_batch_size=64",
    "--config.train.grid_every=5",
    "--config.method.width=4",
    "--config.method.blocks=1",
]


def start(workdir):
    """A training process that has taken some steps of its last phase."""
    command = [sys.executable, "-m", "efsgd_jax.train", f"--workdir={workdir}", *FLAGS]
    process = subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if len(list((workdir / "private/grids").glob("*.png"))) > 2:
            return process
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    raise AssertionError("no step was taken")


def config_of(run):
    from efsgd_jax.config import config_from

    return config_from(json.loads((run / "private/run.json").read_text())["config"])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was stopped by the command, and its private steps by then."""
    run = tmp_path_factory.mktemp("stop") / "run"
    process = start(run)
    assert process_of(Workdir(run))["pid"] == process.pid
    assert stop_command([str(run)]) == 0
    assert process.wait(30) == 143
    return run


def test_a_stopped_run_is_released_at_the_epsilon_it_has_spent(stopped, tmp_path, capsys):
    assert process_of(Workdir(stopped)) is None
    assert not (stopped / "private/process.json").exists()
    with pytest.raises(UserError, match="no process trains"):
        stop(stopped)
    report = stop(stopped, release=True)
    setup = prepare(config_of(stopped))
    assert 0 < report["steps"] < setup.ledger.steps
    assert report["epsilon"] == setup.ledger.spent(report["steps"])
    assert report["epsilon"] < 10
    assert f"stopped after {report['steps']} of {setup.ledger.steps} private steps" in report["caveats"][-1]
    assert "with epsilon 9.99" in report["caveats"][-1] or "with epsilon 10" in report["caveats"][-1]
    assert report["caveats"][-1] in (stopped / "release/PRIVACY.md").read_text()
    pack(stopped, tmp_path / "release.zip")
    assert sample(stopped, 20).images.shape == (20, 8, 8, 1)
    # It is finished: the same command as before takes no further step.
    assert fit(config_of(stopped), stopped, progress=False).steps == report["steps"]
    with pytest.raises(UserError, match="is finished"):
        stop(stopped, release=True)


@pytest.mark.slow
def test_the_command_ends_and_releases_a_run_in_one(tmp_path, capsys):
    run = tmp_path / "run"
    process = start(run)
    assert stop_command([str(run), "--release"]) == 0
    assert process.wait(30) == 143
    out = capsys.readouterr().out
    assert out.startswith("released at epsilon ")
    assert "If the time to stop was chosen by looking" in out
    assert (run / "release/generator.msgpack").is_file()


def test_what_cannot_be_stopped_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        stop(tmp_path)
    run = tmp_path / "run"
    (run / "private").mkdir(parents=True)
    (run / "private/run.json").write_text("{}")
    directory = Workdir(run)
    with sole_owner(directory):
        found = json.loads(directory.process.read_text())
        directory.process.write_text(json.dumps({**found, "host": "elsewhere"}))
        with pytest.raises(UserError, match="trained on elsewhere"):
            stop(run)


def test_nothing_is_released_before_the_last_phase(tmp_path, monkeypatch):
    from efsgd_jax import load_config
    from efsgd_jax.training import runner

    config = load_config("configs/digits.py")

    class Halted(Exception):
        pass

    def halt(*arguments, **options):
        if arguments[0].name == "training":
            raise Halted
        return taken(*arguments, **options)

    taken = runner.steps_of
    monkeypatch.setattr(runner, "steps_of", halt)
    with pytest.raises(Halted):
        fit(config, tmp_path / "run", progress=False)
    with pytest.raises(UserError, match=r"before the last phase, training, has taken a step"):
        stop(tmp_path / "run", release=True)
    assert not (tmp_path / "run/release/generator.msgpack").exists()
