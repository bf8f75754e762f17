"""What a person can get wrong ends with one line, exit status 2, and nothing written."""

import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest

from efsgd_jax import fit
from efsgd_jax.cli.evaluate import main as score
from efsgd_jax.cli.sample import main as draw
from efsgd_jax.cli.train import main as train
from efsgd_jax.runs.privacy_markdown import to_markdown
from efsgd_jax.runs.privacy_report import privacy_report, public_facts
from efsgd_jax.training.setup import make_ledger

ROOT = Path(__file__).parents[1]
GAN = "--config=preset:efsgd_digits"


def npz(path, images, labels, test=None):
    x, y = test or (images[:20], labels[:20])
    np.savez(path, x_train=images, y_train=labels, x_test=x, y_test=y, class_names=np.array(["a", "b", "c"]))
    return f"--config.data.path={path}"


def fails(capsys, program, argv, *words):
    assert program(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith(("warning: ", "reading the data, "))]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


IMAGES = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
LABELS = np.arange(60) % 3


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.privacy.epsilon=0"], ["epsilon", "0"]),
        (["--config.privacy.epsilon=-1"], ["epsilon"]),
        (["--config.privacy.epsilon=nan"], ["epsilon"]),
        (["--config.privacy.epsilon=1e-9", "--config.privacy.delta=1e-15"], ["unreachable"]),
        (["--config.privacy.epsilon=0.1", "--config.privacy.noise_multiplier=0.5"], ["unreachable"]),
        (["--config.privacy.delta=1.5"], ["delta"]),
        (["--config.privacy.feedback=sometimes"], ["feedback"]),
        (["--config.privacy.feedback=hidden"], ["feedback_l2_norm_clip"]),
        (["--config.train.expected_batch_size=5000"], ["5000", "1422"]),
        (["--config.train.steps=ten"], ["ten"]),
        (["--config.train.stepz=10"], ["stepz", "steps"]),
        (["--config.nothing.here=10"], ["nothing"]),
        (["--config.train=10"], ["group"]),
        (["--config.train.steps"], ["=VALUE"]),
        (["--nonsense=1"], ["nonsense"]),
        (["--config=absent.py"], ["absent.py"]),
        (["--config.data.name=digit"], ["digits"]),
        (["--config.data.classes=0"], ["config.data.classes", "'0'"]),
        (["--config.data.value_range=255..0"], ["config.data.value_range", "'255..0'"]),
        (["--config.data.name=npz"], ["path"]),
        (["--config.data.name=npz", "--config.data.path=/nowhere.npz"], ["/nowhere.npz"]),
        (["--config.data.image_size=9"], ["image_size", "9"]),
        # What random configurations found.
        (["--config.data.image_size=1000000000"], ["image_size", "1024"]),
        (["--config.privacy.noise_multiplier=1e-9"], ["unreachable", "inf"]),
        (["--config.privacy.noise_multiplier=1e9"], ["noise_multiplier", "10000"]),
        (["--config.privacy.epsilon=1e9"], ["nothing is promised"]),
        (["--config.method.microbatch_size=2147483648"], ["microbatch_size", "1048576"]),
        (
            ["--config=preset:sanitized_mnist_small", "--config.train.images_per_step=1000000000"],
            ["images_per_step", "1048576"],
        ),
    ],
)
def test_a_bad_flag_is_named_and_no_run_begins(flags, words, tmp_path, capsys):
    config = [] if any(flag.startswith("--config=") for flag in flags) else [GAN]
    fails(capsys, train, [*config, *flags, f"--workdir={tmp_path / 'run'}"], *words)
    assert not (tmp_path / "run").exists()


def test_a_config_is_asked_for(tmp_path, capsys):
    fails(capsys, train, [f"--workdir={tmp_path / 'run'}"], "--config is missing", "preset:folder")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: (np.where(IMAGES > 250, np.nan, IMAGES / 255.0), LABELS), ["nan"]),
        (lambda: (IMAGES / 1.0, LABELS), ["image 0", "--config.data.value_range=0..255"]),
        (lambda: (IMAGES, np.where(LABELS == 1, 7, LABELS)), ["label"]),
        (lambda: (IMAGES, LABELS - 1), ["-1"]),
        (lambda: (IMAGES[:50], LABELS), ["50", "60"]),
        (lambda: (IMAGES[:, :6], LABELS), ["square"]),
    ],
)
def test_bad_arrays_are_named_and_no_run_begins(make, words, tmp_path, capsys):
    images, labels = make()
    flag = npz(tmp_path / "data.npz", images, labels)
    flags = [GAN, "--config.data.name=npz", flag, "--config.train.expected_batch_size=10"]
    fails(capsys, train, [*flags, f"--workdir={tmp_path / 'run'}"], "data.npz")
    assert not (tmp_path / "run").exists()
    assert train([*flags, f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err.lower()
    assert all(word in err for word in words), err


def test_a_corrupt_image_is_named(tmp_path, capsys):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(IMAGES[i]).save(tmp_path / "pics" / name / f"{i}.png")
    (tmp_path / "pics/b/3.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    flags = ["--config=configs/folder.py", f"--config.data.path={tmp_path / 'pics'}", f"--workdir={tmp_path / 'run'}"]
    fails(capsys, train, flags, "b/3.png")


def test_workdirs_of_something_else_are_left_alone(finished_run, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").write_text("words")
    fails(capsys, train, [GAN, f"--workdir={tmp_path / 'thesis'}"], "not empty")
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter1.tex"]
    (tmp_path / "file").write_text("words")
    fails(capsys, train, [GAN, f"--workdir={tmp_path / 'file'}"], "is a file")
    fails(capsys, train, [GAN, f"--workdir={finished_run.workdir}"], "another configuration", "was 4, now 8")


def test_data_that_changed_under_a_run_is_said_without_a_hash_of_it(tmp_path, capsys):
    flags = ["--config.data.name=npz", "--config=preset:mixture_mnist", f"--workdir={tmp_path / 'run'}"]
    small = ["components=1", "directions=4", "candidates=1", "pose_weight=0", "deformation=0"]
    flags += [f"--config.method.{k}" for k in small]
    flags += [npz(tmp_path / "data.npz", IMAGES, LABELS)]
    assert train(flags) == 0
    capsys.readouterr()
    known = json.loads((tmp_path / "run/private/run.json").read_text())["data_sha256"]
    npz(tmp_path / "data.npz", 255 - IMAGES, LABELS)
    fails(capsys, train, flags, "have changed since")
    assert train(flags) == 2
    err = capsys.readouterr().err
    assert known not in err
    assert "sha256" not in err


def test_unfinished_and_damaged_runs_are_neither_sampled_nor_scored(finished_run, tmp_path, capsys):
    fails(capsys, draw, [f"--workdir={tmp_path}", f"--out={tmp_path / 'o'}"], "no finished run")
    fails(capsys, score, [f"--workdir={tmp_path}"], "no finished run")
    shutil.copytree(finished_run.workdir, tmp_path / "run")
    (tmp_path / "run/release/generator.msgpack").write_bytes(b"rubbish")
    fails(capsys, draw, [f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'o'}"], "damaged")
    fails(capsys, draw, [f"--workdir={finished_run.workdir}", f"--out={tmp_path / 'p'}", "--n=0"], "at least 1")
    fails(capsys, draw, [f"--workdir={finished_run.workdir}", f"--out={tmp_path / 'p'}", "--formats=gif"], "gif")
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "p").exists()


def test_a_full_disk_is_seen_before_training(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(ValueError, match="free disk"):
        fit(small_config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_large_delta_warns_and_names_n(small_config):
    config = small_config.copy_and_resolve_references().unlock()
    config.privacy.update(delta=1e-2, noise_multiplier=1.0)
    with pytest.warns(UserWarning, match="N = 1438"):
        ledger = make_ledger(config, 1438)
    public = public_facts(1438, {"image_size": 8, "channels": 1, "class_names": ["a", "b"]}, "")
    assert "Weak delta" in to_markdown(privacy_report(ledger, 2, debugging_seed=False, public=public))
