"""Images of other systems are scored from a file, and what is wrong with it is one line."""

import numpy as np
import pytest

from efsgd_jax import default_config, evaluate_samples, load_dataset
from efsgd_jax.cli.evaluate import main as score

DATA = load_dataset("digits")
IMAGES, LABELS = DATA.train_images[:300], DATA.train_labels[:300]


def with_nan(images):
    images = images / 255.0
    images[3, 2, 1] = np.nan
    return images


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EFSGD_JAX_DATA", str(tmp_path / "cache"))


def test_images_of_a_file_are_scored(tmp_path):
    file = tmp_path / "samples.npz"
    np.savez(file, x_train=IMAGES[..., 0], y_train=LABELS)
    options = {"metrics": ("utility",), "classifiers": ("logistic_regression",)}
    scores = evaluate_samples(file, default_config(), **options)
    assert scores.num_images == 300
    assert scores.gen2real["logistic_regression"].accuracy > 0.8
    np.savez(file, x_train=IMAGES / 255.0, y_train=LABELS)  # floats in [0, 1] are the same images
    assert evaluate_samples(file, default_config(), **options).gen2real["logistic_regression"].accuracies == (
        scores.gen2real["logistic_regression"].accuracies
    )


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (IMAGES[:9], np.arange(9), ["'9'", "no image"]),
        (IMAGES[LABELS != 4], LABELS[LABELS != 4], ["class '4' (label 4)", "no image"]),
        (IMAGES, np.where(LABELS == 4, 10, LABELS), ["label 10", "0..9"]),
        (np.repeat(IMAGES, 3, axis=3), LABELS, ["8x8 with 3 channels", "8x8 with 1 channel"]),
        (IMAGES[:, :7, :7], LABELS, ["7x7 with 1 channel", "8x8"]),
        (with_nan(IMAGES), LABELS, ["nan", "image 3"]),
        (IMAGES, LABELS[:-1], ["300 images but 299 labels"]),
    ],
    ids=["too few", "a class missing", "another class", "colour", "another size", "NaN", "a label missing"],
)
def test_bad_images_are_one_line(images, labels, words, tmp_path, capsys):
    np.savez(tmp_path / "samples.npz", x_train=images, y_train=labels)
    assert_one_line([f"--samples={tmp_path / 'samples.npz'}", "--config=configs/digits.py"], words, capsys)


def test_samples_have_a_range_of_their_own(tmp_path, capsys):
    """Of diffusion models often -1..1, whatever that of the real images is."""
    file = tmp_path / "samples.npz"
    np.savez(file, x_train=IMAGES / 127.5 - 1, y_train=LABELS)
    flags = [f"--samples={file}", "--config=configs/digits.py", "--metrics=utility"]
    assert_one_line(flags, ["set --samples_range=-1..1"], capsys)
    options = {"metrics": ("utility",), "classifiers": ("logistic_regression",)}
    scores = evaluate_samples(file, default_config(), samples_range="-1..1", **options)
    assert scores.gen2real["logistic_regression"].accuracy > 0.8
    assert score([*flags, "--samples_range=-1..1", "--classifiers=logistic_regression"]) == 0


def test_fidelity_needs_no_labels(tmp_path, capsys):
    file = tmp_path / "samples.npz"
    np.savez(file, x_train=IMAGES)
    flags = [f"--samples={file}", "--config=configs/digits.py"]
    assert_one_line(flags, ["no array y_train", "ask for --metrics=fidelity,copying"], capsys)
    assert score([*flags, "--metrics=fid"]) == 0
    assert "FID" in capsys.readouterr().out
    real = evaluate_samples(file, default_config(), metrics=("fidelity",)).fidelity["classifier"]
    np.savez(file, x_train=255 - IMAGES)
    negative = evaluate_samples(file, default_config(), metrics=("fidelity",)).fidelity["classifier"]
    assert 5 * real["fid"] < negative["fid"]
    assert 0.9 < real["real_accuracy"] <= 1


def test_bad_files_are_one_line(tmp_path, capsys):
    file = tmp_path / "samples.npz"
    np.savez(file, x_train=IMAGES, y_train=LABELS)
    flags = [f"--samples={file}", "--config=configs/digits.py"]
    assert_one_line([*flags, "--classifiers=forest"], ["forest"], capsys)
    assert_one_line([*flags, "--n=20"], ["neither --n nor --seed"], capsys)
    assert_one_line(flags[:1], ["needs --config"], capsys)
    file.write_bytes(file.read_bytes()[:3000])
    assert_one_line(flags, [str(file), "not a readable .npz"], capsys)
    file.unlink()
    assert_one_line(flags, ["no such file", str(file)], capsys)


def assert_one_line(flags, words, capsys):
    assert score(flags) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
