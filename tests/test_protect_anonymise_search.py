"""Anonymised images: the latent of a generator, recognisers, and the search."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_generators import DIGITS, QUICK, train

from efsgd_jax.protect import classifier, embedder
from efsgd_jax.protect.anonymise import Search, anonymise
from efsgd_jax.protect.embedder import ATTACKED, changed, train_embedder
from efsgd_jax.protect.latent import class_normals, latent_of
from efsgd_jax.protect.reidentify import own_cosine, rank_one, rank_one_in_class
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, draw


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    return latent_of(train(tmp_path_factory.mktemp("anonymise")))


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
