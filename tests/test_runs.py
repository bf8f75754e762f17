"""Runs on disk: what is released, resuming after a kill, sampling, scoring."""

import json
import math
import stat
import struct

import numpy as np
import pytest
from PIL import Image

from efsgd_jax import default_config, evaluate, fit, load_dataset, sample
from efsgd_jax.cli.evaluate import main as score
from efsgd_jax.cli.sample import main as draw
from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.images import class_grid, folder_names
from efsgd_jax.training.metrics_stream import MetricsStream
from efsgd_jax.training.trackers import TensorBoard


def test_release_holds_what_may_be_published_and_nothing_else(finished_run):
    release = finished_run.workdir / "release"
    names = sorted(p.name for p in release.iterdir())
    assert names == ["PRIVACY.md", "config.json", "generator.msgpack", "privacy.json", "samples.png"]
    report = json.loads((release / "privacy.json").read_text())
    assert report["guarantee"] is True
    assert 9.5 < report["epsilon"] <= 10
    head = f"# ({format_epsilon(report['epsilon'])}, 1e-05)-differential"
    assert (release / "PRIVACY.md").read_text().startswith(head)
    public = json.loads((release / "config.json").read_text())
    assert "seed" not in public["config"]["train"]
    assert "path" not in public["config"]["data"]
    key = json.loads((finished_run.workdir / "private" / "key.json").read_text())
    assert str(key[0]) not in "".join(p.read_text() for p in release.iterdir() if p.suffix in (".json", ".md"))


def test_private_is_for_its_owner(finished_run):
    private = finished_run.workdir / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for name in ("key.json", "run.json", "metrics.jsonl"):
        assert stat.S_IMODE((private / name).stat().st_mode) == 0o600


def test_metrics_are_streamed_with_the_epsilon_spent(finished_run):
    rows = [json.loads(line) for line in (finished_run.workdir / "private/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    spent = [row["epsilon"] for row in rows]
    assert spent == sorted(spent)
    assert spent[-1] <= 10
    assert all(row["images_per_second"] > 0 and row["reconstruction"] > 0 for row in rows)
    assert list((finished_run.workdir / "private/tensorboard").glob("events*"))
    assert sorted(p.name for p in (finished_run.workdir / "private/grids").iterdir()) == ["000004.png", "000006.png"]


def test_a_finished_run_is_not_trained_again(finished_run, small_config):
    before = (finished_run.workdir / "release/generator.msgpack").stat().st_mtime_ns
    again = fit(small_config, finished_run.workdir, progress=False)
    assert again == finished_run
    assert (finished_run.workdir / "release/generator.msgpack").stat().st_mtime_ns == before


def test_samples_read_back(finished_run, tmp_path):
    out = tmp_path / "out"
    samples = sample(finished_run.workdir, 33, seed=4, out=out)
    assert samples.images.shape == (33, 8, 8, 1)
    assert samples.images.dtype == np.uint8
    assert np.bincount(samples.labels).tolist() == [4, 4, 4, 3, 3, 3, 3, 3, 3, 3]
    np.testing.assert_array_equal(sample(finished_run.workdir, 33, seed=4).images, samples.images)
    assert (sample(finished_run.workdir, 33, seed=5).images != samples.images).any()

    again = np.load(out / "samples.npz")
    np.testing.assert_array_equal(again["x_train"], samples.images[..., 0])
    folder = load_dataset("folder", path=out / "png", channels=1)
    assert len(folder.train_images) + len(folder.test_images) == 33
    assert folder.class_names == samples.class_names
    with Image.open(out / "grid.png") as grid:
        assert grid.width == (10 * 9 - 1) * 8
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["per_class"]["0"] == 4
    assert manifest["privacy"]["epsilon"] == finished_run.epsilon
    with pytest.raises(UserError, match="not an empty directory"):
        sample(finished_run.workdir, 33, out=out)


def test_scores_are_saved_in_the_private_part(finished_run):
    scores = evaluate(finished_run.workdir, num_images=100, metrics=("utility",), classifiers=("logistic_regression",))
    value = scores.gen2real["logistic_regression"]
    assert value.num_train == 100
    assert value.num_test == 375
    saved = json.loads((finished_run.workdir / "private/scores.json").read_text())
    assert saved["gen2real"]["logistic_regression"]["accuracy"] == value.accuracy


@pytest.mark.slow
def test_explicit_noise_stops_at_the_target(small_config, tmp_path):
    config = small_config.copy_and_resolve_references().unlock()
    config.privacy.update(noise_multiplier=1.0, epsilon=1.2)
    config.train.steps = 1000
    result = fit(config, tmp_path / "run", progress=False)
    assert 0 < result.steps < 1000
    assert result.epsilon <= 1.2


@pytest.mark.slow
def test_hidden_feedback_reports_its_assumption_free_epsilon(small_config, finished_run, tmp_path):
    config = small_config.copy_and_resolve_references().unlock()
    config.privacy.update(feedback="hidden", feedback_l2_norm_clip=0.2)
    result = fit(config, tmp_path / "run", progress=False)
    assert result.epsilon <= 10
    assert "assumption-free" in result.privacy["phases"][0]["mechanism"]
    sigma, plain = (r.privacy["phases"][0]["mechanism_parameters"]["noise_multiplier"] for r in (result, finished_run))
    assert sigma > 1.1 * plain  # plain: feedback none


def test_programs_print_what_a_person_needs(finished_run, tmp_path, capsys):
    assert draw([f"--workdir={finished_run.workdir}", f"--out={tmp_path / 'o'}", "--n=20", "--formats=grid"]) == 0
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
        "PRIVACY.md",
        "README.md",
        "grid.png",
        "manifest.json",
    ]
    assert score([f"--workdir={finished_run.workdir}", "--n=100", "--metrics=utility",
                  "--classifiers=logistic_regression"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "gen2real" in out
    assert "LR" in out
    assert "not covered by epsilon" in out


@pytest.mark.slow
def test_rgb_folders_train_and_sample(small_config, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a/b", "c"):
        directory = tmp_path / "pictures" / name.replace("/", "_")
        directory.mkdir(parents=True)
        for i in range(40):
            Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(directory / f"{i}.jpg")
    config = small_config.copy_and_resolve_references().unlock()
    config.data.update(name="folder", path=str(tmp_path / "pictures"), image_size=16)
    config.privacy.noise_multiplier = 3.0
    config.train.update(steps=2, expected_batch_size=16)
    result = fit(config, tmp_path / "run", progress=False)
    assert sample(result.workdir, 4, out=tmp_path / "out").images.shape == (4, 16, 16, 3)


def test_grids_have_one_row_per_class():
    labels = np.repeat(np.arange(3), 2)
    images = (labels * 100).astype(np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    grid = class_grid(images, labels, 3, columns=2)
    assert grid.shape == (14, 9, 1)
    assert [grid[r, 0, 0] for r in (0, 5, 10)] == [0, 100, 200]
    assert grid[4, 0, 0] == 128
    assert class_grid(images, labels, 40, columns=2).shape[1] > 9  # many classes share rows


def test_folder_names_are_safe_and_distinct():
    assert folder_names(["T-shirt/top", "Bag"]) == ["0_T-shirt_top", "1_Bag"]
    assert folder_names(["Bag", "T-shirt/top"]) == ["Bag", "T-shirt_top"]
    assert folder_names(["a/b", "a_b"]) == ["0_a_b", "1_a_b"]
    assert folder_names(["..", "x"]) == ["0_", "1_x"]


def test_the_default_config_is_that_of_digits():
    from efsgd_jax import load_config

    assert load_config("configs/efsgd_digits.py") == default_config()


def test_tensorboard_shows_the_run_that_counts(tmp_path):
    """And of a killed process only what came before the continued one."""
    from tensorboardX.proto import event_pb2

    for first, steps in ((0, (2, 4, 6)), (4, (6,))):
        stream = MetricsStream(tmp_path / "metrics.jsonl", first, [TensorBoard(tmp_path / "board", first)])
        for step in steps:
            stream.write(step, {"loss": step / 8 + first, "nothing": math.nan}, "training")
        stream.close()
    seen, restarts = [], []
    for file in (tmp_path / "board").iterdir():
        data, at = file.read_bytes(), 0
        while at < len(data):  # TFRecord: a length and its checksum, then the event and its own
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            seen += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            restarts += [event.step] if event.session_log.status == event_pb2.SessionLog.START else []
    assert sorted(seen) == [(2, "loss", 0.25), (4, "loss", 0.5), (6, "loss", 0.75), (6, "loss", 4.75)]
    assert restarts == [5]


def test_metrics_by_the_names_of_torch_fidelity(finished_run, capsys):
    """Only what was asked for is shown; the file keeps what was computed of the same images before."""
    asked = [f"--workdir={finished_run.workdir}", "--n=120", "--classifiers=logistic_regression"]
    assert score([*asked, "--metrics=utility", "--json"]) == 0
    capsys.readouterr()
    assert score([*asked, "--metrics=fid,prc", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (found,) = shown["fidelity"].values()
    assert found.keys() == {"num_images", "fid", "precision", "recall", "density", "coverage"}
    assert score([*asked, "--metrics=fid"]) == 0
    text = capsys.readouterr().out
    assert "FID " in text
    assert "KID 0" not in text
    assert "recall 0" not in text
    kept = json.loads((finished_run.workdir / "private/scores.json").read_text())
    assert {"gen2real", "fidelity"} <= kept.keys()
    assert "kid" in kept["fidelity"]["classifier"]
    assert score([*asked[:1], "--n=110", "--metrics=fid"]) == 0
    assert "had gen2real, real2gen, fidelity of 120 other images" in capsys.readouterr().err
    assert "gen2real" not in json.loads((finished_run.workdir / "private/scores.json").read_text())
    assert score([*asked, "--metrics=ppl"]) == 2
    assert "use some of utility, fidelity, copying, fid, kid, isc, prc" in capsys.readouterr().err
