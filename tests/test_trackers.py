"""The trackers that a user may choose, with the real package: what they get, and where it goes."""

import json
import struct

import numpy as np
import pytest

from efsgd_jax import default_config, fit
from efsgd_jax.cli.train import main as train
from efsgd_jax.errors import UserError


@pytest.fixture
def tiny():
    config = default_config("gaussian_mixture")
    config.method.update(components=1, directions=4, candidates=1)
    return config


def test_wandb_gets_the_metrics_in_files_of_the_private_part(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fit(tiny, tmp_path / "run", progress=False, trackers=("wandb",))
    private = tmp_path / "run/private"
    rows = [json.loads(line) for line in (private / "metrics.jsonl").read_text().splitlines()]
    (directory,) = (private / "wandb/wandb").glob("offline-run-*")
    (log,) = directory.glob("*.wandb")
    assert rows
    assert _steps_in(log) == [row["step"] for row in rows]
    assert not list(directory.glob("**/*.py"))
    assert not (private / "tensorboard").exists()


def _steps_in(log):
    """The steps of the history in a file of Weights & Biases: protocol buffers in a LevelDB log."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts, steps = log.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:  # a block ends with zeros where no header has room
            at += 32_768 - at % 32_768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])  # after four bytes of a checksum
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = wandb_internal_pb2.Record.FromString(parts)
            parts = b""
            if record.WhichOneof("record_type") == "history":
                steps.append(record.history.step.num)
    return steps


def test_a_run_without_trackers_has_its_own_metrics_only(tiny, tmp_path):
    fit(tiny, tmp_path / "run", progress=False, trackers=())
    assert (tmp_path / "run/private/metrics.jsonl").is_file()
    assert not (tmp_path / "run/private/tensorboard").exists()
    assert not (tmp_path / "run/private/wandb").exists()


def test_an_unknown_tracker_is_refused_before_anything_is_written(tiny, tmp_path, capsys):
    with pytest.raises(UserError, match="unknown tracker 'mlflow'; use some of tensorboard,wandb"):
        fit(tiny, tmp_path / "run", trackers=("tensorboard", "mlflow"))
    assert train(["--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", "--trackers=mlflow"]) == 2
    assert "unknown tracker 'mlflow'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_datasets_reads_what_sample_wrote_and_its_parquet_is_read(tiny, tmp_path, monkeypatch):
    """Hugging Face's package in both directions: a directory of samples, and a file of to_parquet."""
    import datasets

    from efsgd_jax import load_dataset, sample

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    fit(tiny, tmp_path / "run", progress=False, trackers=())
    images, labels, names = sample(tmp_path / "run", 40, out=tmp_path / "drawn", formats=("parquet",))
    read = datasets.load_dataset(str(tmp_path / "drawn"), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.features["label"].names == list(names)
    np.testing.assert_array_equal(np.array(read["label"]), labels)
    np.testing.assert_array_equal(np.stack([np.array(x) for x in read["image"]])[..., None], images)

    read.to_parquet(str(tmp_path / "theirs.parquet"))
    data = load_dataset("parquet", path=str(tmp_path / "theirs.parquet"), channels=1, test_fraction=0.5)
    assert data.class_names == tuple(names)
    assert sorted(np.concatenate([data.train_labels, data.test_labels])) == sorted(labels)
    both = np.concatenate([data.train_images, data.test_images])
    assert {x.tobytes() for x in both} == {x.tobytes() for x in images}
