"""``efsgd protect confound``: the bound on every pixel, the two noises, the attacks, and the command."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import load_dataset
from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.protect import confound_run
from efsgd_jax.protect.classifier import Training, train_classifier
from efsgd_jax.protect.confound import (
    Confounding,
    add_noise,
    class_patches,
    peak_signal_to_noise,
    stand_in,
    train_confounder,
)
from efsgd_jax.protect.confound_attacks import (
    MEANS,
    UNSEEN,
    fewer_bits,
    grey_scale,
    jpeg,
    shifted,
    without_class_means,
)
from efsgd_jax.protect.confound_run import GENERATOR, NO_ATTACK, PATCHES, confound, radius_for
from efsgd_jax.protect.output import statement_of
from efsgd_jax.protect.sources import Chosen, Labelled

SHORT = {"training": Training(steps=12, batch_size=16), "confounding": Confounding(steps=6, batch_size=16)}
ATTACKS = [
    NO_ATTACK, UNSEEN, "grey-scale", "JPEG, quality 10", "4 bits", "random shifts by up to 1 pixels",
    "adversarial training, 8 of 255 in one step", MEANS,
    "10% unprotected images mixed in", "25% unprotected images mixed in",
]  # fmt: skip


def coloured(n, seed=0):
    """Images of three classes with a bright column in each, at full range so that sums are clipped."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3).astype(np.int32)
    images = rng.integers(256, size=(n, 11, 11, 3))
    images[np.arange(n), :, 3 * labels + 1] = 255
    return Labelled(images.astype(np.uint8), labels)


def only(clean):
    """No test image is to be protected."""
    return Chosen(clean, clean.rows(np.arange(0)))


def write_coloured(path, n=150):
    train, test = coloured(n), coloured(60, 1)
    np.savez(
        path, x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels,
        class_names=["a", "b", "c"],
    )  # fmt: skip
    return str(path)


def digits():
    data = load_dataset("digits")
    return Labelled(data.train_images, data.train_labels), Labelled(data.test_images, data.test_labels)


@pytest.mark.parametrize("radius", [1, 8, 255])
def test_no_pixel_changes_by_more_than_the_radius_after_rounding(radius):
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(50, 0)
    noise = np.random.default_rng(0).uniform(-1, 1, images.shape)
    noise[0], noise[1], noise[2] = 1.0, -1.0, 1.0 + 1e-3
    change = add_noise(images, noise, radius).astype(int) - images
    assert change.max() == radius == -change.min()
    assert (change[0] == np.minimum(radius, 255 - images[0].astype(int))).all()


def test_patterns_of_classes_differ_and_come_from_the_seed():
    found = class_patches((30, 30, 3), 10, 0)
    assert len(np.unique(found.reshape(10, -1), axis=0)) == 10
    np.testing.assert_array_equal(found, class_patches((30, 30, 3), 10, 0))
    assert (found != class_patches((30, 30, 3), 10, 1)).any()
    assert (found[:, :4, :4] == found[:, :1, :1]).all()  # squares of four pixels


def test_the_noise_stands_for_its_label_on_any_image_and_follows_its_own():
    clean, test = digits()
    reader = train_classifier(*clean, 10, 0, Training(steps=100))
    made = train_confounder(*clean, reader, 32, 0, Confounding(steps=200))
    wrong = (test.labels + 3) % 10
    noise = made.noise(test.images, wrong)
    assert np.abs(noise).max() <= 1
    others = add_noise(np.roll(test.images, 1, axis=0), noise, 32)
    read_as = stand_in(wrong, 10)
    assert made.reader.accuracy(others, read_as) > 0.8
    assert reader.accuracy(others, read_as) < 0.5  # the classifier that was given has not changed
    assert reader.accuracy(*test) > 0.8
    assert np.abs(noise[wrong == 0] - noise[wrong == 0].mean(0)).max() > 0.01


def test_the_same_seed_gives_the_same_bytes_and_numbers():
    clean, test = coloured(120), coloured(60, 1)
    one, two, other = (confound(only(clean), test, 3, confound_run.Options(seed=s, **SHORT)) for s in (4, 4, 5))
    assert one.images.tobytes() == two.images.tobytes() != other.images.tobytes()
    assert one.rows == two.rows
    assert one.largest == 8 == np.abs(one.images.astype(int) - clean.images).max()
    assert one.psnr == peak_signal_to_noise(clean.images, one.images) > 30
    assert {candidate.name for candidate in one.candidates} == {GENERATOR, PATCHES}
    assert one.candidates[0].chosen_by <= one.candidates[1].chosen_by


def test_a_seed_is_secret_and_a_fresh_one_is_not_kept():
    """Who knows it computes the random squares, and takes them off."""
    clean, test = coloured(120), coloured(60, 1)
    noise = class_patches((11, 11, 3), 3, 12345)[clean.labels]
    undone = add_noise(add_noise(clean.images, noise, 8), -noise, 8)
    assert (undone == clean.images).mean() > 0.9  # all but what was clipped at 0 or 255
    texts = []
    for seed in (None, None, 12345):
        options = confound_run.Options(seed=seed, **SHORT)
        made = confound(only(clean), test, 3, options)
        texts.append(made.images.tobytes())
        statement = statement_of(confound_run.protection_of(made, "x", options))
        assert "12345" not in statement
        assert ("fresh, and not kept" in statement) == (seed is None)
    assert len(set(texts)) == 3


def test_test_images_are_protected_without_being_learned_from():
    clean, test = coloured(120), coloured(60, 1)
    options = confound_run.Options(seed=4, **SHORT)
    without, made = confound(only(clean), test, 3, options), confound(Chosen(clean, test), test, 3, options)
    np.testing.assert_array_equal(made.images[:120], without.images)
    assert made.rows == without.rows
    assert (made.learned_from, len(made.images)) == (120, 180)
    np.testing.assert_array_equal(made.labels, np.concatenate([clean.labels, test.labels]))
    change = np.abs(made.images[120:].astype(int) - test.images).max(axis=(1, 2, 3))
    assert (change > 0).all()
    assert change.max() <= 8
    assert "120 images and 60 test images" in confound_run.protection_of(made, "x", options).summary


def test_a_protection_that_protects_nothing_says_so():
    clean, test = coloured(60), coloured(60, 1)
    options = confound_run.Options(seed=4, **SHORT)
    made = confound(only(clean), test, 3, options)
    for protected, useless in ((0.5, False), (0.89, True)):
        first = made.rows[0]._replace(protected=protected, unprotected=0.9)
        told = made._replace(rows=(first, *made.rows[1:]))
        statement = statement_of(confound_run.protection_of(told, "x", options))
        assert told.useless == ("nearly as much" in statement) == useless


def test_attacks_change_images_as_they_say():
    images = coloured(40).images
    grey = grey_scale(images)
    assert (grey == grey[..., :1]).all()
    np.testing.assert_array_equal(grey_scale(grey), grey)
    assert 1 < np.abs(jpeg(images[:, :8, :8]).astype(int) - images[:, :8, :8]).mean() < 128
    assert jpeg(grey[..., :1]).shape == (40, 11, 11, 1)
    assert len(np.unique(fewer_bits(images))) == 16
    assert np.abs(fewer_bits(images).astype(int) - images).max() <= 9
    x = jnp.arange(2 * 5 * 5.0).reshape(2, 5, 5, 1)
    moved = [shifted(x, jax.random.key(i), 1) for i in range(30)]
    assert any((a == x).all() for a in moved[:30]) or len({a.tobytes() for a in map(np.asarray, moved)}) > 5
    assert all(float(a[0, 2, 2, 0]) in (6, 7, 8, 11, 12, 13, 16, 17, 18) for a in moved)


def test_who_knows_patterns_of_classes_removes_them_by_means():
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 3
    images = rng.integers(100, 156, size=(600, 11, 11, 3)).astype(np.uint8)
    protected = add_noise(images, class_patches((11, 11, 3), 3, 0)[labels], 8)
    left = without_class_means(Labelled(protected, labels)).images.astype(float)
    means = np.stack([left[labels == k].mean(0) for k in range(3)])
    assert np.abs(means - means.mean(0)).max() < 0.5


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(confound_run, "Options", functools.partial(confound_run.Options, **SHORT))


def test_the_command_writes_images_and_every_attack_and_a_release_refuses_it(short, tmp_path, capsys):
    data, out = write_coloured(tmp_path / "data.npz"), tmp_path / "out"
    command = ["protect", "confound", data, f"--out={out}", "--n=120", "--max_change=5", "--json"]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["attack"] for row in shown["attacks"]] == [name.replace("8 of 255", "5 of 255") for name in ATTACKS]
    assert (shown["images"], shown["largest"], shown["guarantee"]) == (120, 5, "none")
    text = (out / "PROTECTION.md").read_text()
    assert "not differential privacy" in text
    for row in shown["attacks"]:
        assert f"| {row['attack']} | {row['protected']:.3g} | {row['unprotected']:.3g} |" in text
    written = np.load(out / "samples.npz")
    originals = coloured(150)
    for image, label in zip(written["x_train"].astype(int), written["y_train"], strict=True):
        nearest = np.abs(originals.images - image).max(axis=(1, 2, 3))
        assert nearest.min() <= 5
        assert originals.labels[nearest.argmin()] == label
    assert main(["release", str(out), str(tmp_path / "release.zip")]) == 2
    assert "efsgd protect confound" in capsys.readouterr().err
    assert main(command) == 2
    assert "is not an empty directory" in capsys.readouterr().err


def test_grey_images_may_change_by_more_and_have_no_grey_scale_attack(short):
    assert (radius_for(3, 0), radius_for(1, 0), radius_for(1, 3)) == (8, 16, 3)
    clean, test = (Labelled(x.images[:, :8, :8, :1], x.labels) for x in (coloured(90), coloured(60, 1)))
    made = confound(only(clean), test, 3, confound_run.Options())
    assert made.largest == 16
    names = [name.replace("8 of 255", "16 of 255") for name in ATTACKS if name != "grey-scale"]
    assert [row.attack for row in made.rows] == names


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no labels", "label"),
        ("one class", "one class"),
        ("few images", "at least 20"),
        ("few of those chosen", "name a larger number"),
        ("few test images", "test images; at least 40"),
        ("negative", "at least 1, or 0 for all"),
        ("change", "max_change is 256"),
        ("nothing there", "missing"),
        ("existing", "is not an empty directory"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(case, words, short, tmp_path, capsys):
    path, out, flags = tmp_path / "data.npz", tmp_path / "out", []
    good = coloured(150)
    arrays = {"x_train": good.images, "y_train": good.labels, "class_names": ["a", "b", "c"]}
    if case == "no labels":
        del arrays["y_train"]
    elif case == "one class":
        arrays |= {"y_train": np.zeros(150, int), "class_names": ["a"]}
    elif case == "few images":
        arrays |= {"x_train": good.images[:30], "y_train": good.labels[:30]}
    elif case == "few of those chosen":
        flags = ["--n=30"]
    elif case == "few test images":
        arrays |= {"x_test": good.images[:30], "y_test": good.labels[:30]}
    elif case == "negative":
        flags = ["--n=-1"]
    elif case == "change":
        flags = ["--max_change=256"]
        arrays |= {"x_test": good.images[:60], "y_test": good.labels[:60]}
    elif case == "nothing there":
        path = tmp_path / "missing"
    elif case == "existing":
        out.mkdir()
        (out / "mine.txt").write_text("kept")
    np.savez(tmp_path / "data.npz", **arrays)
    assert main(["protect", "confound", str(path), f"--out={out}", *flags]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert words in error
    assert [p.name for p in out.glob("*")] == (["mine.txt"] if case == "existing" else [])


@pytest.mark.slow
def test_digits_are_protected_from_a_network_that_trains_on_them_as_they_are():
    clean, test = digits()
    made = confound(only(clean), test, 10, confound_run.Options(radius=64, seed=0, training=Training(steps=300)))
    assert made.rows[0].unprotected > 0.9
    assert made.rows[0].protected < made.rows[0].unprotected - 0.2
    with pytest.raises(UserError, match="test images; at least 40"):
        confound(only(clean), test.rows(np.arange(39)), 10)
