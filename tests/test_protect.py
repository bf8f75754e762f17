"""The frame of ``efsgd protect``: the statement, the mark, the refusal of a release, and reading of images."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest

import efsgd_jax
from efsgd_jax import load_dataset
from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.protect.output import Measured, Protection, mark_directory, statement_of, write_images, write_protection
from efsgd_jax.protect.sources import images_to_protect, read_images
from efsgd_jax.runs.release import pack

TABLE = Measured("a classifier", ("attack", "accuracy"), [("none", 0.5)])
PACKAGE = Path(efsgd_jax.__file__).parent


def protection(**changes):
    return Protection("views", "Views were bent.", ["a copy"], ["a camera"], {"radius": 1}, [TABLE])._replace(**changes)


def test_a_statement_says_that_there_is_no_guarantee_and_what_breaks_it():
    text = statement_of(protection())
    assert "not differential privacy" in text
    assert "- a camera" in text
    assert "| none | 0.5 |" in text


@pytest.mark.parametrize("missing", ["breaks", "measured"])
def test_a_statement_without_an_attack_is_refused(missing):
    with pytest.raises(ValueError, match="attack report"):
        statement_of(protection(**{missing: []}))


def test_release_refuses_a_protected_directory_by_its_name_and_what_is_in_it(tmp_path):
    write_protection(tmp_path / "bent", protection())
    (tmp_path / "bent/run/release").mkdir(parents=True)
    for place in ("bent", "bent/run"):
        with pytest.raises(UserError, match=r"efsgd protect views.*not differential privacy"):
            pack(tmp_path / place, tmp_path / "out.zip")
    assert not (tmp_path / "out.zip").exists()


def test_images_are_written_to_a_marked_directory_only_and_stay_as_they_are(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(6, 4, 4, 3), dtype=np.uint8)
    labels = np.array([1, 0, 1, 0, 1, 0])
    with pytest.raises(UserError, match="not marked"):
        write_images(tmp_path, images, labels, ("a", "b"))
    mark_directory(tmp_path, "confound")
    write_images(tmp_path, images, labels, ("a", "b"))
    written = np.load(tmp_path / "samples.npz")
    order = np.argsort(labels, kind="stable")
    np.testing.assert_array_equal(written["x_train"], images[order])
    np.testing.assert_array_equal(written["y_train"], labels[order])
    assert json.loads((tmp_path / "protection.json").read_text())["protection"] == "confound"


def test_images_with_too_few_of_a_class_or_one_class_are_refused(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(30, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "few.npz", x_train=images, y_train=np.arange(30) // 25, class_names=["a", "b"])
    with pytest.raises(UserError, match=r"class 'b' has \d training images; at least 20"):
        read_images(tmp_path / "few.npz", {"test_fraction": 0.1})
    np.savez(tmp_path / "one.npz", x_train=images, y_train=np.zeros(30, int), class_names=["a"])
    with pytest.raises(UserError, match="one class"):
        read_images(tmp_path / "one.npz")


def test_the_images_that_a_seed_chooses_keep_every_class():
    data = load_dataset("digits")
    (images, labels), (test, _) = images_to_protect(data, 600, 3)
    assert images.shape == (600, 8, 8, 1)
    assert len(np.unique(labels)) == 10
    assert len(test) == 0
    with pytest.raises(UserError, match="at least 20 of each class"):
        images_to_protect(data, 50, 3)
    with pytest.raises(UserError, match="-1"):
        images_to_protect(data, -1, 3)


@pytest.mark.parametrize(("n", "of_test"), [(0, 375), (10_000, 375), (1422, 0), (1500, 78)])
def test_test_images_are_protected_after_all_others(n, of_test):
    data = load_dataset("digits")
    (images, _), (test, labels) = images_to_protect(data, n, 3)
    np.testing.assert_array_equal(images, data.train_images)
    assert len(test) == of_test
    rows = [next(i for i in range(375) if np.array_equal(data.test_images[i], x)) for x in test[:20]]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(labels[:20], data.test_labels[rows])


def test_no_name_in_protect_is_an_epsilon_but_the_private_smotes():
    found = []
    for folder in ("protect", "cli/protect"):
        for file in sorted((PACKAGE / folder).glob("*.py")):
            if file.name in ("private_smote.py", "smote.py"):
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                words = [getattr(node, field, "") for field in ("id", "attr", "arg", "name")]
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    words.append(node.value.replace("there is no epsilon", ""))
                found += [(file.name, word) for word in words if isinstance(word, str) and "epsilon" in word.lower()]
    # The help of the command names what these protections do not have.
    assert [name for name, _ in found if name != "__init__.py"] == []


@pytest.mark.parametrize(("arguments", "says"), [([], "needs one of"), (["cloak"], "'cloak'"), (["smote"], "required")])
def test_a_command_without_a_kind_is_one_line(arguments, says, capsys):
    assert main(["protect", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_help_names_every_kind(capsys):
    from efsgd_jax.cli.protect import KINDS

    with pytest.raises(SystemExit) as stop:
        main(["protect", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(kind in shown for kind in KINDS)
