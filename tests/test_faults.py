"""What machines do to a run: it continues from its last good state, or says exactly what is wrong."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.serialization import msgpack_restore

from efsgd_jax import fit
from efsgd_jax.cli.train import main as train
from efsgd_jax.errors import UserError
from efsgd_jax.runs.ownership import sole_owner
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.training import loop, signals
from efsgd_jax.training.checkpoints import Checkpoints
from efsgd_jax.training.devices import plain

FLAGS = [
    "--config=preset:efsgd_digits",
    "--config.train.steps=60", "--config.train.expected_batch_size=32", "--config.train.log_every=5",
    "--config.train.grid_every=10", "--config.train.seed=7", "--config.method.generated_batch_size=8",
    *(f"--config.method.{k}=4" for k in ("latent", "generator_width", "discriminator_width", "encoder_width")),
    "--config.method.max_width=8",
]  # fmt: skip


def released(workdir):
    return jax.tree.leaves(msgpack_restore((workdir / "release/generator.msgpack").read_bytes()))


def steps_kept(workdir):
    return sorted(int(p.stem) for p in (workdir / "private/checkpoints").glob("*.msgpack"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert train([*FLAGS, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture
def unfinished(whole, tmp_path):
    """The same run as it was when a machine died before the release."""
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "release")
    return workdir


def assert_same_run(workdir, whole):
    a, b = (json.loads((d / "release/privacy.json").read_text()) for d in (workdir, whole))
    assert a == b
    assert a["steps"] == 60
    assert "NOT PRIVATE" in (workdir / "release/PRIVACY.md").read_text().splitlines()[0]  # with a seed
    for x, y in zip(released(workdir), released(whole), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    rows = [json.loads(line)["step"] for line in (workdir / "private/metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(5, 61, 5))
    assert not [p for p in workdir.rglob("*") if "tmp" in p.name]


@pytest.mark.parametrize(
    ("sign", "when"),
    [
        pytest.param(signal.SIGKILL, "begun.json", marks=pytest.mark.slow),
        (signal.SIGKILL, "checkpoints/0*"),
        pytest.param(signal.SIGTERM, "checkpoints/0*", marks=pytest.mark.slow),
    ],
    ids=["SIGKILL before a checkpoint", "SIGKILL after one", "SIGTERM"],
)
def test_a_run_that_was_killed_ends_as_if_nothing_had_been(sign, when, whole, tmp_path):
    killed = tmp_path / "run"
    command = [sys.executable, "-m", "efsgd_jax.train", *FLAGS, f"--workdir={killed}"]
    # It reads what was compiled before and writes nothing there, where half a file would stay.
    reading = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e6"}
    process = subprocess.Popen(command, env=reading, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 300
    while not list((killed / "private").glob(when)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, sign)
    _, err = process.communicate()
    assert not (killed / "release/generator.msgpack").exists(), "the run ended before it could be killed"
    kept, begun = steps_kept(killed), json.loads((killed / "private/begun.json").read_text())
    assert begun["steps"] >= max(kept, default=5)
    assert begun["steps"] % 5 == 0
    assert 0 < begun["epsilon"] < 10
    if sign == signal.SIGTERM:
        assert process.returncode == 143
        assert f"stopped at step {kept[-1]} of 60" in err
        assert "Traceback" not in err
    (killed / "private/.left.123.tmp").write_text("half")

    assert train([*FLAGS, f"--workdir={killed}"]) == 0
    assert_same_run(killed, whole)
    assert json.loads((killed / "private/begun.json").read_text())["steps"] == 60


def damage(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    else:
        path.write_bytes(b"")


STATE = {"w": np.zeros((40, 50), np.float32), "key": jax.random.key(0), "n": (np.int32(0), None)}


def state_of(step):
    return {"w": np.full((40, 50), float(step), np.float32), "key": jax.random.key(step), "n": (np.int32(step), None)}


@pytest.fixture
def kept(tmp_path):
    """A directory of three states, of which the first went."""
    keep = Checkpoints(tmp_path / "c")
    for step in (1, 2, 3):
        keep.save(step, state_of(step))
    assert sorted(p.stem for p in (tmp_path / "c").iterdir()) == ["000000002", "000000003"]
    return tmp_path / "c"


def assert_state(found, step):
    assert found[0] == step
    chex.assert_trees_all_equal(jax.tree.map(plain, found[1]), jax.tree.map(plain, state_of(step)))


def test_states_come_back(kept):
    assert_state(Checkpoints(kept).restore(lambda step: STATE), 3)
    with pytest.raises(UserError, match="another version"):
        Checkpoints(kept).restore(lambda step: {**STATE, "w": np.zeros((50, 40), np.float32)})
    assert Checkpoints(kept / "none").restore(lambda step: STATE) == (0, None)


@pytest.mark.parametrize("how", ["truncated", "flipped", "emptied"])
def test_a_damaged_checkpoint_leaves_the_one_before(how, kept, capsys):
    damage(kept / "000000003.msgpack", how)
    assert_state(Checkpoints(kept).restore(lambda step: STATE), 2)
    assert "000000003.msgpack is damaged" in capsys.readouterr().err
    assert not (kept / "000000003.msgpack").exists()
    damage(kept / "000000002.msgpack", how)
    with pytest.raises(UserError, match=r"000000002\.msgpack is damaged, and there is no whole checkpoint"):
        Checkpoints(kept).restore(lambda step: STATE)


def test_every_flipped_bit_is_seen(kept):
    file = kept / "000000003.msgpack"
    content = file.read_bytes()
    for at in [*range(0, 80), *range(80, len(content), 97), len(content) - 1]:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert_state(Checkpoints(kept).restore(lambda step: STATE), 2)


def test_a_run_goes_on_from_the_checkpoint_before(unfinished, whole, capsys):
    assert steps_kept(unfinished) == [50, 60]
    damage(unfinished / "private/checkpoints/000000060.msgpack", "flipped")
    assert train([*FLAGS, f"--workdir={unfinished}"]) == 0
    assert "goes on from checkpoint 50" in capsys.readouterr().err
    assert_same_run(unfinished, whole)
    assert steps_kept(unfinished) == [50, 60]


def test_one_process_owns_a_workdir(unfinished, small_config, tmp_path, capsys):
    with sole_owner(Workdir(unfinished)):
        assert train([*FLAGS, f"--workdir={unfinished}"]) == 2
    assert "another process is at work" in capsys.readouterr().err
    new = Workdir(tmp_path / "new")
    new.create()  # the other has only just begun
    with sole_owner(new), pytest.raises(UserError, match="another process"):
        fit(small_config, new.root, progress=False)
    assert not new.run.exists()


@pytest.mark.slow
def test_a_run_that_was_killed_before_it_said_what_it_is_begins_anew(small_config, tmp_path):
    directory = Workdir(tmp_path / "run")
    directory.create()
    (directory.private / ".run.json.1.tmp").write_text("{")
    directory.lock.touch()
    assert fit(small_config, directory.root, progress=False).steps == 6
    assert not list(directory.private.glob("*.tmp"))


def test_another_key_would_spend_twice(small_config, finished_run, tmp_path):
    shutil.copytree(finished_run.workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/release")
    key = tmp_path / "run/private/key.json"
    kept = key.read_text()
    key.write_text("[1, 2")
    with pytest.raises(UserError, match=r"key\.json"):
        fit(small_config, tmp_path / "run", progress=False)
    key.write_text("[1]")
    with pytest.raises(UserError, match="damaged"):
        fit(small_config, tmp_path / "run", progress=False)
    key.unlink()
    with pytest.raises(UserError, match="spent, twice"):
        fit(small_config, tmp_path / "run", progress=False)
    key.write_text(kept)
    assert fit(small_config, tmp_path / "run", progress=False).steps == 6


def test_what_memory_cannot_hold_is_one_line(small_config, tmp_path, monkeypatch):
    """As the compiler says it; really to fill the memory would end the tests."""

    def too_large(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore")

    monkeypatch.setattr(loop, "make_update", too_large)
    with pytest.raises(UserError, match=r"memory is not enough: RESOURCE.*99 bytes\.; .*microbatch_size"):
        fit(small_config, tmp_path / "run", progress=False)


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(small_config, finished_run, tmp_path, monkeypatch):
    jumps = itertools.cycle([4e9, 0.0, 1e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    result = fit(small_config, tmp_path / "run", progress=False)
    assert result.privacy == finished_run.privacy
    rows = [json.loads(line) for line in (tmp_path / "run/private/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert all(row["images_per_second"] > 0 for row in rows)


def test_no_process_passes_over_the_step_at_which_all_end(monkeypatch):
    """Steps are taken ten at a time; JAX stops at the number after the largest one that it was asked about."""
    chosen, asked = 3, []

    def reached(number):
        asked.append(number)
        return number == chosen

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(signals.multihost_utils, "reached_preemption_sync_point", reached)
    with signals.preemption() as asked_to_end:
        answers = [asked_to_end(step) for step in range(10, 60, 10)]
    assert asked == [0, 1, 2, 3, 4]
    assert answers == [False, False, False, True, False]


def test_the_ledger_never_falls(tmp_path):
    directory = Workdir(tmp_path / "run")
    directory.create()
    directory.begin(10, 1.0, 1e-5)
    directory.begin(5, 0.7, 1e-5)
    assert json.loads(directory.begun.read_text()) == {"steps": 10, "epsilon": 1.0, "delta": 1e-5}


def test_parameters_that_are_not_finite_are_named_and_not_kept(small_config, tmp_path, monkeypatch):
    """At step 6 a weight of the generator breaks; the state of step 4 stays."""
    make = loop.make_update

    def broken(phase, *args, **options):
        def step(state, access, key):
            state, metrics = phase.step(state, access, key)
            path, _ = jax.tree_util.tree_leaves_with_path(state.params)[-1]
            broken.name = jax.tree_util.keystr(path, simple=True, separator="/")
            factor = jnp.where(state.step == 6, jnp.nan, 1.0)
            bad = jax.tree_util.tree_map_with_path(lambda p, x: x * factor if p == path else x, state.params)
            return state._replace(params=bad), metrics

        return make(phase._replace(step=step), *args, **options)

    monkeypatch.setattr(loop, "make_update", broken)
    with pytest.raises(UserError, match="no longer finite at step 6") as refused:
        fit(small_config, tmp_path / "run", progress=False)
    assert broken.name in str(refused.value)
    assert steps_kept(tmp_path / "run") == [4]
    assert not (tmp_path / "run/release").exists()


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from efsgd_jax.cli.train import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.slow
def test_what_cannot_be_written_is_one_line_and_nothing_is_lost(unfinished, whole):
    """Files that may not grow beyond some kilobytes stand for a disk that is full."""
    (unfinished / "private/checkpoints/000000060.msgpack").unlink()
    command = [sys.executable, "-c", FULL, "6000", *FLAGS, f"--workdir={unfinished}"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "cannot write" in errors[0]
    assert str(unfinished) in errors[0]
    assert train([*FLAGS, f"--workdir={unfinished}"]) == 0
    assert_same_run(unfinished, whole)
