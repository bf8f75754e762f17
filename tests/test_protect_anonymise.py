"""Anonymised images: the latent, the search, who recognises what, the key, and refusals in one line."""

import dataclasses
import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import default_config, fit, load_dataset
from efsgd_jax.cli.main import main
from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics import feature_classifier
from efsgd_jax.protect import anonymise as search_module
from efsgd_jax.protect import anonymise_run, classifier, embedder
from efsgd_jax.protect.anonymise import Search, anonymise
from efsgd_jax.protect.anonymise_run import Learning, anonymise_images, latent_for
from efsgd_jax.protect.embedder import ATTACKED, changed, embedder_named, train_embedder
from efsgd_jax.protect.latent import class_normals, latent_of
from efsgd_jax.protect.reidentify import own_cosine, rank_one, rank_one_in_class
from efsgd_jax.protect.restoring_key import RestoringKey, read_key, restore
from efsgd_jax.runs.release import pack
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, draw

DIGITS = load_dataset("digits")
N = 300
SHORT = Learning(
    embedder.Training(steps=3, batch_size=32),
    classifier.Training(steps=30),
    feature_classifier.Training(steps=20),
    pairs=60,
)
QUICK = Search(steps=4, outputs=2)


def small_mixture():
    config = default_config("gaussian_mixture")
    config.privacy.update(epsilon=50.0, delta=1e-4)
    config.method.update(components=2, directions=20, candidates=1, cluster_steps=1)
    config.train.seed = 0
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("anonymise") / "run"
    fit(small_mixture(), directory, progress=False)
    return directory


@pytest.fixture(scope="module")
def latent(run):
    return latent_of(run)


@pytest.fixture(scope="module")
def recogniser():
    return train_embedder(
        DIGITS.train_images, DIGITS.train_labels, ATTACKED, 0, embedder.Training(steps=120, batch_size=64)
    )


@pytest.fixture(scope="module")
def classify():
    params = classifier.train_classifier(
        DIGITS.train_images, DIGITS.train_labels, 10, 0, classifier.Training(steps=150)
    ).params
    return lambda x: classifier.Cnn(10).apply(params, 2 * x - 1)


def of_some(count=50):
    return DIGITS.train_images[:count], DIGITS.train_labels[:count]


def test_codes_of_a_class_have_the_mean_and_the_covariance_of_its_samples():
    key = jax.random.key(0)
    axes = jnp.linalg.qr(jax.random.normal(key, (2, 3, 4, 4)))[0]
    mixture = Mixture(
        means=jnp.zeros((2, 4)),
        basis=jnp.eye(4),
        weights=jnp.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]),
        centres=jax.random.normal(jax.random.key(1), (2, 3, 4)),
        axes=axes,
        variances=jax.random.uniform(jax.random.key(2), (2, 3, 4)).at[1, 0, 3].set(0.0),
    )
    mean, forward, back = class_normals(mixture)
    for label in range(2):
        drawn = jax.vmap(lambda k, y=label: draw(mixture, k, y))(jax.random.split(key, 20_000))
        np.testing.assert_allclose(mean[label], drawn.mean(0), atol=0.05)
        np.testing.assert_allclose(forward[label] @ forward[label].T, np.cov(drawn.T), atol=0.1)
    np.testing.assert_allclose(back[0] @ forward[0], np.eye(4), atol=1e-4)
    # The second class has a direction without variance: it has no code, and codes along it change nothing.
    assert np.linalg.matrix_rank(np.asarray(forward[1]), tol=1e-4) == 3
    np.testing.assert_allclose(forward[1] @ back[1] @ forward[1], forward[1], atol=1e-4)


def test_a_code_shows_its_image(latent):
    images, labels = of_some(200)
    again = latent.images(latent.codes(images, labels), labels)
    means = np.stack([images[labels == y].mean(0) for y in range(10)])[labels]
    assert np.square(again.astype(float) - images).mean() < 0.5 * np.square(means - images).mean()
    assert rank_one(again.reshape(200, -1).astype(float), images.reshape(200, -1).astype(float)) > 0.8


def test_a_generator_with_a_network_finds_codes_by_descent(finished_run):
    latent = latent_of(finished_run.workdir)
    images, labels = of_some(8)
    codes = latent.codes(images, labels)
    assert codes.shape == (8, latent.size)

    def error(codes):
        return np.square(latent.images(codes, labels).astype(float) - images).sum()

    assert error(codes) < error(np.zeros_like(codes))


def test_another_copy_is_recognised_and_a_small_change_is_small(recogniser):
    images, _ = of_some(200)
    copies = np.asarray(255 * changed(jax.random.key(1), images / 255.0)).round().astype(np.uint8)
    gallery, probes = recogniser.embed(images), recogniser.embed(copies)
    np.testing.assert_allclose(np.linalg.norm(gallery, axis=1), 1, atol=1e-4)
    assert rank_one(probes, gallery) > 0.4  # a guess is right in 0.005
    assert np.abs(copies.astype(float) - images).mean() < np.abs(images[1:].astype(float) - images[:-1]).mean() / 2


def test_a_network_learns_from_partners_what_a_tool_keeps():
    """The tool keeps one number of each image and draws the rest anew: pairs say which number it is."""
    rng = np.random.default_rng(0)
    kept = rng.integers(256, size=(400, 1, 1, 1))

    def drawn(shape):
        return rng.integers(256, size=shape)

    images, partners = (drawn((400, *many, 8, 8, 1)) for many in ((), (3,)))
    images[:, 2:6, 2:6], partners[..., 2:6, 2:6, :] = kept, kept[:, None]
    images, partners, labels = images.astype(np.uint8), partners.astype(np.uint8), np.zeros(400, int)
    training = embedder.Training(steps=100, batch_size=64)
    of_pairs, of_changes = (train_embedder(images, labels, ATTACKED, 0, training, p) for p in (partners, None))
    shares = [rank_one(e.embed(partners[:100, 0]), e.embed(images[:100])) for e in (of_pairs, of_changes)]
    assert shares[0] > 0.1
    assert shares[0] > 2 * shares[1]


def test_the_search_lowers_the_cosine_and_keeps_the_class(latent, recogniser, classify):
    images, labels = of_some()
    embed, key = recogniser.recogniser(), jax.random.key(3)

    def cosine(found):
        return own_cosine(recogniser.embed(found.images), recogniser.embed(images))

    def of_class(found):
        return float(np.mean(np.argmax(classify(found.images / 255.0), axis=1) == labels))

    make = partial(anonymise, images, labels, latent, embed, classify, key)
    rebuilt, searched = make(Search(keep=1, steps=0)), make(Search(keep=1, steps=30, length=0.5))
    assert cosine(rebuilt) > 0.6
    assert cosine(searched) < 0.25
    regardless = make(Search(keep=1, steps=30, length=0.5, class_weight=0.0))
    assert of_class(searched) >= max(0.9, of_class(regardless))
    np.testing.assert_array_equal(searched.codes, rebuilt.codes)


def test_a_recogniser_that_finds_nothing_in_an_output_does_not_spoil_it(latent, recogniser, classify):
    images, labels = of_some(30)
    embed = recogniser.recogniser()

    def of_the_bright(x):
        return jnp.where(x.mean((1, 2)) > 0.3, embed(x), jnp.nan)

    found = anonymise(images, labels, latent, of_the_bright, classify, jax.random.key(3), QUICK)
    outputs = found.outputs.reshape(-1, 64)
    dark = outputs.mean(axis=1) < 0.3 * 255
    assert 0 < dark.sum() < len(dark)
    assert (outputs.std(axis=1) > 20).all()


def test_outputs_are_pushed_apart(latent, recogniser, classify):
    images, labels = of_some(20)

    def alike(weight):
        search = Search(keep=0.9, steps=20, length=0.5, apart_weight=weight, outputs=2)
        found = anonymise(images, labels, latent, recogniser.recogniser(), classify, jax.random.key(3), search)
        return own_cosine(recogniser.embed(found.outputs[:, 0]), recogniser.embed(found.outputs[:, 1]))

    assert alike(1.0) < alike(0.0) - 0.1


def test_the_image_of_least_energy_does_not_depend_on_how_many_are_searched_for(latent, recogniser, classify):
    images, labels = of_some(60)  # more than a chunk
    make = partial(anonymise, latent=latent, embed=recogniser.recogniser(), classify=classify, search=QUICK)
    a, b, c = (make(images, labels, key=jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(a.images, b.images)
    assert (a.images != c.images).any()
    assert a.images.shape == images.shape
    assert a.outputs.shape == (60, 2, *images.shape[1:])
    assert all((x == outputs).reshape(2, -1).all(1).any() for x, outputs in zip(a.images, a.outputs, strict=True))


def test_who_knows_the_seed_finds_every_original(latent, recogniser, classify):
    """So that the seed is fresh, and not kept, unless one is asked for."""
    images, labels = of_some(40)
    make = partial(anonymise, images, labels, latent, recogniser.recogniser(), classify)
    published, repeated = (make(jax.random.key(7), search=Search(keep=0, steps=2)).images for _ in range(2))
    flat = [x.reshape(40, -1).astype(float) for x in (published, repeated)]
    assert rank_one(*flat) == 1


def test_shares_of_recognised_images():
    gallery = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    probes = np.array([[2.0, 0.1], [1.0, 0.0], [3.0, 3.1], [-1.0, 0.1]])
    assert rank_one(probes, gallery) == 0.75
    assert rank_one_in_class(probes, gallery, np.array([0, 1, 1, 0])) == 0.75
    assert rank_one_in_class(probes, gallery, np.array([0, 1, 0, 1])) == 1


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
import jax.numpy as jnp
def flat(x): return x.reshape(len(x), -1)
def image(x): return x
def fails(x): raise RuntimeError("no weights")
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
