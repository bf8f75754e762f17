"""Anonymised images: what is written, the key, and refusals in one line."""

import dataclasses
import json
import sys
from functools import partial

import numpy as np
import pytest
from small_generators import DIGITS, QUICK, train

from efsgd_jax import load_dataset
from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics import feature_classifier
from efsgd_jax.protect import anonymise as search_module
from efsgd_jax.protect import anonymise_run, classifier, embedder
from efsgd_jax.protect.anonymise import Search
from efsgd_jax.protect.anonymise_run import Learning, anonymise_images, latent_for
from efsgd_jax.protect.embedder import embedder_named
from efsgd_jax.protect.latent import latent_of
from efsgd_jax.protect.reidentify import own_cosine, rank_one
from efsgd_jax.protect.restoring_key import RestoringKey, check_key_file, read_key, restore
from efsgd_jax.runs.release import pack

N = 300
SHORT = Learning(
    embedder.Training(steps=3, batch_size=32),
    classifier.Training(steps=30),
    feature_classifier.Training(steps=20),
    pairs=60,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("anonymise"))


@pytest.fixture(scope="module")
def latent(run):
    return latent_of(run)


def of_some(count=50):
    return DIGITS.train_images[:count], DIGITS.train_labels[:count]


def anonymised(out, latent, data=DIGITS, **options):
    return anonymise_images(
        data, latent, out, **{"n": N, "seed": 1, "search": QUICK, "learning": SHORT, "progress": False} | options
    )


@pytest.fixture(scope="module")
def made(latent, tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    return place / "out", anonymised(place / "out", latent)


def test_what_is_written_says_what_breaks_it_and_is_never_released(made, tmp_path):
    out, outcome = made
    text = (out / "PROTECTION.md").read_text()
    assert "No key was kept" in text
    assert all(name in text for name in outcome.recognised)
    assert len(outcome.recognised) == 9
    written = np.load(out / "samples.npz")
    assert written["x_train"].reshape(N, 8, 8, 1).tolist() == outcome.images.tolist()
    assert np.bincount(written["y_train"]).tolist() == np.bincount(outcome.originals.labels).tolist()
    with pytest.raises(UserError, match="efsgd protect anonymise"):
        pack(out, tmp_path / "out.zip")
    names = {path.name for path in out.iterdir()}
    assert names == {"PROTECTION.md", "protection.json", "samples.npz", "grid.png", "png"}


def test_all_images_are_anonymised_with_those_of_a_test_split(latent, tmp_path):
    few = dataclasses.replace(
        DIGITS,
        train_images=DIGITS.train_images[:150],
        train_labels=DIGITS.train_labels[:150],
        test_images=DIGITS.test_images[:30],
        test_labels=DIGITS.test_labels[:30],
    )
    outcome = anonymised(tmp_path / "out", latent, data=few, n=0)
    every = np.concatenate([few.train_images, few.test_images]).reshape(180, -1)
    assert sorted(outcome.originals.images.reshape(180, -1).tolist()) == sorted(every.tolist())
    assert len(outcome.images) == 180


def test_the_same_seed_gives_the_same_images_and_the_same_report(made, latent, tmp_path):
    out, first = made
    again = anonymised(tmp_path / "again", latent)
    np.testing.assert_array_equal(again.images, first.images)
    assert again.recognised == first.recognised
    for name in ("PROTECTION.md", "samples.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_a_key_is_kept_if_asked_for_and_restores_the_originals(made, latent, tmp_path):
    """With a fresh seed, which gives other images."""
    file = tmp_path / "private" / "key.npz"
    outcome = anonymised(tmp_path / "out", latent, key_file=file, seed=None)
    assert (outcome.images != made[1].images).any()
    assert file.stat().st_mode & 0o777 == 0o600
    text = (tmp_path / "out/PROTECTION.md").read_text()
    assert "losing it is disclosure" in text
    assert "No key was kept" not in text
    restored = restore(read_key(file), latent)
    flat = [x.reshape(N, -1).astype(float) for x in (restored, outcome.images, outcome.originals.images)]
    assert rank_one(flat[0], flat[2]) > 0.8
    assert rank_one(flat[1], flat[2]) < 0.5
    with pytest.raises(UserError, match="name the run"):
        restore(read_key(file), latent._replace(size=3))
    with pytest.raises(UserError, match="cannot read"):
        read_key(tmp_path / "out/PROTECTION.md")


def test_the_statement_is_there_before_any_image(latent, tmp_path, monkeypatch):
    def fails(*args):
        raise UserError("no space")

    monkeypatch.setattr(anonymise_run, "write_images", fails)
    with pytest.raises(UserError, match="no space"):
        anonymised(tmp_path / "out", latent)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"PROTECTION.md", "protection.json"}


def test_a_key_is_neither_the_directory_of_the_images_nor_above_it(tmp_path):
    for key in (tmp_path / "new", tmp_path / "new" / "out"):
        with pytest.raises(UserError, match="name another"):
            check_key_file(key, tmp_path / "new" / "out")


def test_classes_are_those_of_the_same_name_whatever_their_order(latent):
    names = DIGITS.class_names[::-1]
    turned = load_dataset("digits")
    object.__setattr__(turned, "class_names", names)
    images, labels = of_some(30)
    other = latent_for(turned, latent, "run")
    codes = latent.codes(images, labels)
    np.testing.assert_array_equal(other.codes(images, 9 - labels), codes)
    key = RestoringKey(codes, np.array(names)[9 - labels])
    np.testing.assert_array_equal(restore(key, other), restore(key, latent))
    assert other.class_names == names


MODULE = """
import jax
import jax.numpy as jnp
def flat(x): return x.reshape(len(x), -1)
def image(x): return x
def fails(x): raise RuntimeError("no weights")
def leaves(x): raise SystemExit(0)
def called(x): return jax.pure_callback(lambda x: x.sum((1, 2)), jax.ShapeDtypeStruct((len(x), 1), x.dtype), x)
def two(x): return flat(x)[:2]
def no_faces(x): return jnp.nan * flat(x)
def few_faces(x): return flat(x) * (x.mean((1, 2)) > 0.3)
"""


def test_a_recogniser_of_the_user(tmp_path, monkeypatch, latent):
    (tmp_path / "my_faces.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    try:
        embed = embedder_named("my_faces:flat", (8, 8, 1))
        outcome = anonymised(tmp_path / "out", latent, embed=embed, embed_name="my_faces:flat")
        assert "my_faces:flat" in (tmp_path / "out/PROTECTION.md").read_text()
        cosine = own_cosine(*(x.reshape(N, -1) / 255.0 for x in (outcome.images, outcome.originals.images)))
        assert outcome.cosines.anonymised == pytest.approx(cosine, abs=1e-3)
        for name, count in (("no_faces", f"{N} of {N}"), ("few_faces", f" of {N}")):
            embed = embedder_named(f"my_faces:{name}", (8, 8, 1))
            with pytest.raises(UserError, match=f"finds nothing .*{count} images"):
                anonymised(tmp_path / "none", latent, embed=embed, embed_name=name)
            assert not (tmp_path / "none").exists()
        refused = {"my_faces": "module:function", "my_faces:none": "AttributeError", "nowhere:f": "ModuleNotFound"}
        refused |= {
            "my_faces:leaves": "SystemExit",
            "my_faces:called": "differentiate",
            "my_faces:two": "7 and 500 images",
        }
        refused |= {"my_faces:image": "floats of shape (2, E)", "my_faces:fails": "no weights"}
        for name, message in refused.items():
            with pytest.raises(UserError) as error:
                embedder_named(name, (8, 8, 1))
            assert message in str(error.value)
            assert "\n" not in str(error.value)
    finally:
        sys.modules.pop("my_faces", None)


@pytest.fixture
def command(monkeypatch, run):
    monkeypatch.setattr(anonymise_run, "Learning", lambda: SHORT)
    monkeypatch.setattr(search_module, "Search", partial(Search, steps=2, outputs=2))

    def call(*flags, out, generator=run):
        return main(["protect", "anonymise", f"--n={N}", *flags, f"--generator={generator}", f"--out={out}"])

    return call


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    parts = {"x_train": DIGITS.train_images, "y_train": DIGITS.train_labels}
    np.savez(path, x_test=DIGITS.test_images, y_test=DIGITS.test_labels, class_names=DIGITS.class_names, **parts)
    return path


def test_the_command(command, arrays, tmp_path, capsys):
    flags = ["--keep=0.1", f"--key={tmp_path / 'key.npz'}", "--json"]
    assert command(str(arrays), *flags, out=tmp_path / "out") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["images"] == N
    assert shown["guarantee"] == "none"
    assert set(shown["cosine"]) == {"copies", "fresh", "anonymised"}
    assert "keep: 0.1" in (tmp_path / "out/PROTECTION.md").read_text()
    assert (tmp_path / "key.npz").is_file()
    assert not (tmp_path / "out/key.npz").exists()
    assert command(str(arrays), out=tmp_path / "plain") == 0
    said = capsys.readouterr().out
    assert "not differential privacy" in said
    assert "the key" not in said


def refused_cases(arrays, run, tmp_path):
    small, one, other = (tmp_path / name for name in ("small.npz", "one.npz", "other.npz"))
    images, labels = DIGITS.train_images, DIGITS.train_labels
    np.savez(small, x_train=images[:, :6, :6], y_train=labels, class_names=DIGITS.class_names)
    np.savez(one, x_train=images, y_train=np.zeros(len(labels), int), class_names=["a"])
    np.savez(other, x_train=images, y_train=labels % 2, class_names=["0", "odd"])
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "old.npz").touch()
    out = tmp_path / "out"
    return [
        (small, {}, [], "6x6, 1 channel(s), and"),
        (small, {}, [], "generates 8x8, 1 channel(s); set --config.data.image_size=8"),
        (other, {}, [], "does not know the class 'odd'"),
        (one, {}, [], "has one class; labels are needed"),
        (arrays, {"generator": tmp_path / "unfinished"}, [], "holds no finished run"),
        (arrays, {"out": tmp_path / "full"}, [], "not an empty directory"),
        (tmp_path / "none", {}, [], "no such file or directory"),
        (arrays, {}, ["--keep=2"], "from 0"),
        (arrays, {}, ["--n=40"], "40 images are too few to measure attacks"),
        (arrays, {}, ["--seed=-1"], "at least 0"),
        (arrays, {}, [f"--key={out / 'key.npz'}"], "beside the images that it restores"),
        (arrays, {}, [f"--key={tmp_path / 'old.npz'}"], "name a new file"),
        (arrays, {}, ["--embed=nothing"], "module:function"),
        (arrays, {}, ["--config.train.steps=3"], "does not say how images are read"),
    ]


def test_bad_inputs_have_one_line_and_leave_nothing(command, arrays, run, tmp_path, capsys):
    for path, options, flags, message in refused_cases(arrays, run, tmp_path):
        assert command(str(path), *flags, **{"out": tmp_path / "out"} | options) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1, error
        assert message in error[0]
        assert not (tmp_path / "out").exists()
    assert main(["protect", "anonymise", str(arrays), f"--out={tmp_path / 'out'}"]) == 2
    assert "--generator" in capsys.readouterr().err


def test_a_method_without_a_latent_to_search_is_named(run, monkeypatch):
    born = {"config": {"method": {"name": "born_machine"}}}
    monkeypatch.setattr("efsgd_jax.protect.latent.read_json", lambda path: born)
    with pytest.raises(UserError, match=r"a run of born_machine, whose latent .* gaussian_mixture"):
        latent_of(run)
