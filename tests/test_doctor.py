"""``doctor`` finds what is there, writes nothing, and its advice runs."""

import json
import shlex

import numpy as np
import pytest
from layouts import flat, kaggle_celeba, parquet, rows, table
from malformed import IMAGES, RNG, encode, idx
from PIL import Image

from efsgd_jax.cli.doctor import main as doctor
from efsgd_jax.cli.doctor import to_text
from efsgd_jax.cli.train import main as train
from efsgd_jax.data.guess_source import guess_source
from efsgd_jax.errors import UserError
from efsgd_jax.runs.doctor import _likely as forecast
from efsgd_jax.runs.doctor import examine
from efsgd_jax.runs.likely import CURVES, likely_loss, noise_beyond


def pictures(root, per_class=60, size=16, colour=True, dark=False, level=""):
    for label in ("healthy", "affected"):
        for i in range(per_class):
            shape = (size, size, 3) if colour else (size, size)
            image = RNG.integers(100, 256, shape, dtype=np.uint8)
            if dark:
                image[:4], image[-4:], image[:, :4], image[:, -4:] = 0, 0, 0, 0
            place = root / label / level.format(i // 6)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}.png").write_bytes(encode(Image.fromarray(image)))
    return root


def test_counts_duplicates_and_groups_are_found(tmp_path):
    root = pictures(tmp_path / "p", level="p{}")
    first = root / "healthy/p0/0.png"
    (root / "healthy/p0/copy.png").write_bytes(first.read_bytes())
    almost = np.asarray(Image.open(first)).astype(int)
    almost[0, 0] += 1
    (root / "affected/p0/almost.png").write_bytes(encode(Image.fromarray(almost.astype(np.uint8))))
    (root / "healthy/scan.dat").write_bytes(b"data")
    found = examine(root, {"groups": "folder"})
    facts = found["facts"]
    assert facts["training"] + facts["held_out"] == 122
    assert sum(sum(c.values()) for c in facts["classes"].values()) == 122
    assert facts["identical"] == 1
    assert facts["nearly_identical"] == 2
    assert facts["groups"] <= 10
    assert facts["images_per_group"][2] <= 14
    assert found["public"]["number of training persons"] == facts["groups"]
    assert any("1 with the extension .dat" in w for w in found["warnings"])
    assert all("expect mostly noise" in likely["says"] for likely in found["likely"].values())
    assert "Advice: do not train on these" in to_text(found)
    assert "directions=30" in found["config"]["command"]


@pytest.mark.parametrize(
    ("options", "config", "key"),
    [
        ({}, "folder", ""),
        ({"dark": True}, "folder_cells", ""),
        ({"dark": True, "colour": False}, "folder", "--config.method.pose_weight=8"),
        ({"colour": False, "size": 8}, "folder", "--config.data.channels=1"),
        ({"size": 90}, "folder", "--config.data.image_size=32"),
    ],
)
def test_the_advice_runs(options, config, key, tmp_path, capsys):
    root = pictures(tmp_path / "p", **options)
    found = examine(root)
    assert found["config"]["name"] == config
    assert key in found["config"]["command"]
    words = shlex.split(found["config"]["command"])
    assert words[:2] == ["efsgd", "train"]
    flags = [w.replace("--workdir=RUN", f"--workdir={tmp_path / 'run'}") for w in words[2:]]
    assert train([*flags, "--config.privacy.epsilon=50", "--config.privacy.delta=1e-3"]) == 0
    assert (tmp_path / "run/release/samples.png").is_file()


def test_a_size_that_was_asked_for_is_not_taken_for_the_pictures_own(tmp_path, capsys):
    root = pictures(tmp_path / "p", per_class=10)
    assert doctor([str(root), "--config.data.image_size=8"]) == 0
    assert "any size, read as 8x8" in capsys.readouterr().out
    assert doctor([str(root)]) == 0
    assert "16x16, read as 16x16" in capsys.readouterr().out


def test_the_command_prints_and_writes_nothing(tmp_path, capsys, monkeypatch):
    root = pictures(tmp_path / "p")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert doctor([str(root)]) == 0
    text = capsys.readouterr().out
    assert "do not publish it" in text
    assert "class       healthy: " in text
    assert "epsilon 10" in text
    assert doctor([str(root), "--json", "--config.data.channels=1"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["shape"] == [16, 16, 1]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nowhere"], "no such file or directory: nowhere"),
        (["p", "--config.privacy.epsilon=1"], "does not say how images are read"),
        (["p", "--config.data.image_size=big"], "must be a number"),
        (["p", "--config.data.path=q"], "does not say how images are read"),
        (["p/healthy/0.png"], "another ending"),
        (["p", "--config.data.groups=absent.csv"], "absent.csv"),
    ],
)
def test_errors_are_one_line(flags, words, tmp_path, capsys, monkeypatch):
    pictures(tmp_path / "p")
    monkeypatch.chdir(tmp_path)
    assert doctor(flags) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_sources_are_guessed(tmp_path):
    def made(name, make):
        (tmp_path / name).mkdir()
        return make(tmp_path / name)

    np.savez(tmp_path / "a.npz", x=IMAGES)
    assert guess_source(tmp_path / "a.npz") == "npz"
    assert guess_source(made("folder", flat())) == "folder"
    assert guess_source(made("parquet", parquet("data/train/0.parquet"))) == "parquet"
    listed = flat(("metadata.csv", table(rows(["file_name", "label"]))))
    assert guess_source(made("hugging_face", listed)) == "folder"
    assert guess_source(made("celeba", kaggle_celeba())) == "celeba"
    assert guess_source(made("idx", idx())) == "idx"
    with pytest.raises(UserError):
        guess_source(tmp_path / "nothing")


def test_the_curve_is_the_measured_one():
    with open("benchmarks/results/quality_held_out.json") as file:  # noqa: PTH123
        runs = json.load(file)["runs"]
    for epsilon, accuracy in CURVES["clothes"].accuracy.items():
        rows = runs[f"fashion_mnist {epsilon:g}"]
        assert round(100 * np.mean([row["gen2real_cnn"] for row in rows]), 1) == accuracy
        assert round(np.mean([row["recall"] for row in rows]), 2) == CURVES["clothes"].recall[epsilon]
    with open("benchmarks/results/persons.json") as file:  # noqa: PTH123
        cells = json.load(file)
    assert cells["persons"]["training images"] == CURVES["folder_cells"].records
    for epsilon, accuracy in CURVES["folder_cells"].accuracy.items():
        (row,) = cells["runs"][f"an image, {epsilon:g}"]
        assert round(100 * row["gen2real_cnn"], 1) == accuracy
        assert round(row["recall"], 2) == CURVES["folder_cells"].recall[epsilon]
    assert likely_loss(3.0, 6_382, 2, "folder_cells")[0] > 25
    assert likely_loss(1.0, 54_000, 10)[0] == pytest.approx(87.2 - 80.8)
    assert likely_loss(0.001, 54_000, 10) == (pytest.approx(87.2 - 75.0), False)
    assert noise_beyond(3.0, 6_382, 2, "folder_cells") == pytest.approx(1.1, abs=0.01)
    assert noise_beyond(1.0, 6_382, 2, "folder_cells") == pytest.approx(3.3, abs=0.01)
    assert noise_beyond(20.0, 54_000, 10) == 0.5
    assert likely_loss(3.0, 5_400, 10)[0] > likely_loss(3.0, 54_000, 10)[0]


@pytest.mark.parametrize(("epsilon", "records", "words"), [
    (1.0, 6_411, "poor use and poor variety, or worse: noise is likely to cost more than about 28 of the 40 points"),
    (1.0, 6_411, "good use would need about 55,000 images instead of 6,411"),
    (10.0, 21_069, "images of good use and poor variety: noise is likely to cost about 3 of the 40 points"),
    (100.0, 21_069, "images of good use and poor variety: noise is likely to cost less than about 3 of the 40 points"),
])  # fmt: skip
def test_the_forecast_is_in_words(epsilon, records, words):
    assert words in forecast(epsilon, records, 2, "images", "folder_cells")["says"]
