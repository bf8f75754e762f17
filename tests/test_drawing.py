"""Drawn images have the asked-for counts, and every format is read back with the same images and labels."""

import io
import json
import shutil
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from efsgd_jax import default_config, evaluate_samples, fit, load_dataset, sample, write_samples
from efsgd_jax.cli.sample import main as sample_command
from efsgd_jax.errors import UserError
from efsgd_jax.images import folder_names
from efsgd_jax.runs import writers
from efsgd_jax.runs.class_counts import class_counts
from efsgd_jax.runs.data_card import Publication
from efsgd_jax.runs.statement import detection_bound
from efsgd_jax.runs.writers import WRITERS, Info

NAMES = tuple(f"kind {i}" for i in range(12))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on twelve classes, whose names are not in the sorted order of their folders."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("drawing")
    labels = np.arange(240) % 12
    images = np.minimum(rng.integers(0, 60, (240, 8, 8)) + 15 * labels[:, None, None], 255).astype(np.uint8)
    np.savez(root / "data.npz", x_train=images, y_train=labels, class_names=np.array(NAMES))
    config = default_config("gaussian_mixture")
    config.data.update(name="npz", path=str(root / "data.npz"))
    # With more noise, all images of a run in hundreds are black, and the folder source finds no part to test on.
    config.privacy.update(epsilon=200.0, delta=1e-4)
    config.method.update(components=1, directions=5, candidates=1)
    fit(config, root / "run", progress=False)
    return root / "run"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"n": 5}, [2, 2, 1]),
        ({"n": 1}, [1, 0, 0]),
        ({"n": None, "per_class": {"c": 4, "a": 1}}, [1, 0, 4]),
        ({"n": 7, "proportions": {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}}, [3, 2, 2]),
        ({"n": 3, "proportions": {"a": 0.05, "b": 0.05, "c": 0.9}}, [0, 0, 3]),
        ({"n": 10**6, "proportions": {"b": 0.999999, "c": 0.000001}}, [0, 999_999, 1]),
    ],
)
def test_counts_are_exact(asked, expected):
    assert class_counts(("a", "b", "c"), **asked).tolist() == expected


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"n": 0}, "at least 1"),
        ({"n": None}, "at least 1"),
        ({"n": 3, "per_class": {"a": 1}}, "leave out n"),
        ({"n": None, "per_class": {"d": 1}}, "there is no class 'd'; the classes are a, b, c"),
        ({"n": None, "per_class": {"a": -1}}, "must not be negative"),
        ({"n": None, "per_class": {"a": 0}}, "at least one image"),
        ({"n": 3, "proportions": {"a": 0.5}}, "sum to 0.5"),
        ({"n": 3, "proportions": {"a": float("nan")}}, "must not be negative"),
    ],
)
def test_wrong_counts_are_refused(asked, words):
    with pytest.raises(UserError, match=words):
        class_counts(("a", "b", "c"), **asked)


@pytest.mark.parametrize("names", [NAMES, [str(i) for i in range(101)], ["b", "a"], ["x", "X"], ["", ".."], ["a", "b"]])
def test_sorted_folders_are_in_the_order_of_the_labels(names):
    folders = folder_names(names)
    assert folders == sorted(folders)
    assert len({name.lower() for name in folders}) == len(names)


def read_tar(directory):
    images, labels = [], []
    for path in sorted(directory.glob("*.tar")):
        with tarfile.open(path) as archive:
            content = {entry.name: archive.extractfile(entry).read() for entry in archive}
        for name in sorted(n for n in content if n.endswith(".png")):
            images.append(np.asarray(Image.open(io.BytesIO(content[name]))))
            labels.append(int(content[name.replace(".png", ".cls")]))
    return np.array(images), np.array(labels)


def test_every_format_is_read_back(run, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "ROWS_OF_PARQUET", 70)
    monkeypatch.setattr(writers, "ROWS_OF_TAR", 33)
    drawn = sample(run, 240, seed=3, out=tmp_path / "out", formats=tuple(WRITERS))
    pairs = sorted((x.tobytes(), int(y)) for x, y in zip(drawn.images, drawn.labels, strict=True))
    for source, place in (("npz", "samples.npz"), ("folder", "png"), ("parquet", "data")):
        data = load_dataset(source, path=tmp_path / "out" / place, channels=1)
        images = np.concatenate([data.train_images, data.test_images])
        labels = np.concatenate([data.train_labels, data.test_labels])
        assert sorted((x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)) == pairs
        expected = folder_names(NAMES) if source == "folder" else NAMES
        assert data.class_names == tuple(expected)
    images, labels = read_tar(tmp_path / "out/tar")
    np.testing.assert_array_equal(images, drawn.images[..., 0])
    np.testing.assert_array_equal(labels, drawn.labels)
    assert len(list((tmp_path / "out/data").iterdir())) == 4
    assert len(list((tmp_path / "out/tar").glob("*.tar"))) == 8
    assert (tmp_path / "out/tar/classes.txt").read_text().splitlines() == list(NAMES)


def test_streaming_gives_the_same_images(run, tmp_path):
    drawn = sample(run, 700, seed=3)
    seen = []
    counts = write_samples(run, tmp_path / "out", 700, seed=3, advance=lambda done, total: seen.append((done, total)))
    assert seen == [(500, 700), (700, 700)]
    assert list(counts.values()) == np.bincount(drawn.labels).tolist()
    with np.load(tmp_path / "out/samples.npz") as file:
        np.testing.assert_array_equal(file["x_train"], drawn.images[..., 0])
        np.testing.assert_array_equal(file["y_train"], drawn.labels)


@pytest.mark.parametrize("name", ["npz", "grid", "parquet", "webdataset"])
def test_writers_hold_no_more_for_more_images(name, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "ROWS_OF_TAR", 200)  # a tar file has a record of each entry until it is closed

    def peak(batches):
        labels = np.repeat(np.arange(4), 100 * batches).astype(np.int32)
        info = Info(labels, (16, 16, 1), ("a", "b", "c", "d"))
        batch = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 1), dtype=np.uint8)
        tracemalloc.start()
        with WRITERS[name](tmp_path / f"{batches}", info) as add:
            for start in range(0, len(labels), 100):
                add(batch, labels[start : start + 100])
        (_, most), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
        return most

    few, many = peak(2), peak(40)
    assert many - few < 0.2 * 40 * 400 * 256  # of the pixels of all images


@pytest.mark.parametrize("place", ["", "samples.npz", "png", "data"])
def test_samples_are_scored_where_they_were_written(place, run, tmp_path, monkeypatch):
    monkeypatch.setenv("EFSGD_JAX_DATA", str(tmp_path / "cache"))
    config = json.loads((run / "private/run.json").read_text())["config"]
    sample(run, 240, out=tmp_path / "out", formats=("npz", "png", "parquet"))
    if not place:
        (tmp_path / "out/samples.npz").unlink()
    options = {"metrics": ("utility",), "classifiers": ("logistic_regression",), "classifier_seeds": 1}
    whole = default_config("gaussian_mixture")
    whole.data.update(config["data"])
    scores = evaluate_samples(tmp_path / "out" / place, whole, **options)
    assert scores.num_images == 240


def test_folders_of_other_classes_are_not_scored(run, tmp_path):
    whole = default_config("gaussian_mixture")
    whole.data.update(json.loads((run / "private/run.json").read_text())["config"]["data"])
    sample(run, 24, out=tmp_path / "out", formats=("png",))
    (tmp_path / "out/png/00_kind 0").rename(tmp_path / "out/png/other")
    with pytest.raises(UserError, match="class folder 'other'"):
        evaluate_samples(tmp_path / "out", whole)


def test_the_data_card_says_what_is_needed(run, tmp_path):
    publication = Publication("Kinds\nof things", "cc-by-4.0", "Our clinic: a'b@example.org")
    write_samples(run, tmp_path / "out", per_class={"kind 3": 5, "kind 11": 2}, publication=publication)
    card = (tmp_path / "out/README.md").read_text()
    header = card.split("---\n")[1]
    assert "license: 'cc-by-4.0'\npretty_name: 'Kinds of things'\n" in header
    for words in (
        "7 synthetic grey images of 8x8 pixels",
        "| kind 3 | 5 |",
        "| kind 11 | 2 |",
        "| kind 0 | 0 |",
        "**Licence**: cc-by-4.0.",
        "**Learned from**: Our clinic: a'b@example.org; 1",
        "differential privacy. The guarantee is for one image with its label.",
        "## Not for",
    ):
        assert words in card
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["images"] == 7
    assert manifest["per_class"]["kind 11"] == 2


def test_the_bound_is_that_of_the_definition():
    assert detection_bound(0.0, 0.0) == pytest.approx(0.01)
    assert detection_bound(1.0, 1e-5) == pytest.approx(np.e * 0.01 + 1e-5)
    assert detection_bound(10.0, 1e-5) == pytest.approx(1 - np.exp(-10) * (0.99 - 1e-5))
    assert detection_bound(float("inf"), 1e-5) == 1.0
    for epsilon in (0.5, 2.0, 5.0):  # both error rates are within the bound, and it is tight in one of them
        rate = detection_bound(epsilon, 1e-5)
        slack = [np.exp(epsilon) * 0.01 + 1e-5 - rate, np.exp(epsilon) * (1 - rate) + 1e-5 - 0.99]
        assert min(slack) == pytest.approx(0, abs=1e-9)


def test_the_command_takes_classes_by_name(run, tmp_path, capsys):
    flags = [f"--workdir={run}", f"--out={tmp_path / 'a'}", "--formats=parquet"]
    assert sample_command([*flags, "--per_class=kind 3:5,kind 11:2"]) == 0
    assert "7 images of 2 classes" in capsys.readouterr().out
    for flag, words in (
        ("--per_class=kind 3", "write CLASS:NUMBER"),
        ("--per_class=kind 3:5,kind 3:1", "twice"),
        ("--per_class=kind 3:1.5", "write CLASS:NUMBER"),
        ("--per_class=kind 99:1", "no class 'kind 99'"),
        ("--proportions=kind 3:0.5", "sum to 0.5"),
        ("--n=0", "at least 1"),
    ):
        assert sample_command([flags[0], f"--out={tmp_path / 'b'}", flag]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path):
    with WRITERS["png"](tmp_path, Info(np.zeros(3, np.int32), (4, 4, 1), ("a",))) as add:
        shutil.rmtree(tmp_path / "png")
        with pytest.raises(UserError, match=r"cannot write .*000000\.png .*incomplete"):
            add(np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, np.int32))
