"""``distilled_set``: what is published, what is drawn from it, and that it teaches a classifier."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, evaluate, fit, sample
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.distilled_set.networks import features, half_size, longest, network_features, num_features


def config_of(epsilon, **method):
    config = default_config("distilled_set")
    config.privacy.epsilon = epsilon
    values = {"networks": 4, "width": 16, "images_per_class": 5, "matching_steps": 150}
    config.method.update(values | method)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("distilled") / "run"
    return fit(config_of(10.0), workdir, progress=False)


def test_the_two_releases_cost_what_one_does(run):
    phases = run.privacy["phases"]
    assert [phase["name"] for phase in phases] == ["centre", "signals"]
    shares = [phase["mechanism_parameters"]["share"] for phase in phases]
    assert shares == pytest.approx([0.1, 0.9])
    assert 9.9 < run.epsilon <= 10


def test_the_report_has_the_noise_of_each_release(run):
    """From which epsilon follows: 1 / sigma^2 of both together is that of one release of the budget's noise."""
    text = (run.workdir / "release/PRIVACY.md").read_text()
    each = [float(x) for x in re.findall(r"\| noise multiplier \| ([\d.]+) \|", text)]
    budget = {float(x) for x in re.findall(r"\| noise multiplier of the budget \| ([\d.]+) \|", text)}
    assert len(each) == 2
    assert sum(1 / x**2 for x in each) ** -0.5 == pytest.approx(*budget, rel=1e-4)
    assert "| sensitivity | 1, in units of the norm" in text


def test_samples_are_the_published_images(run):
    published = np.asarray(released_generator(Workdir(run.workdir)).params["images"])
    assert published.shape == (10, 5, 8, 8, 1)
    images, labels, _ = sample(run.workdir, 200)
    for image, label in zip(images, labels, strict=True):
        apart = np.abs(published[label] * 255 - image.astype(float)).max(axis=(1, 2, 3))
        assert apart.min() <= 1
    assert len({image.tobytes() for image in images}) == 50
    few, own, _ = sample(run.workdir, 50)
    assert len({(image.tobytes(), int(label)) for image, label in zip(few, own, strict=True)}) == 50  # each once


def test_a_classifier_learns_from_fifty_images(run):
    scores = evaluate(run.workdir, num_images=500, metrics=("utility",), classifiers=("logistic_regression",))
    assert scores.gen2real["logistic_regression"].accuracy > 0.75


def test_drawn_images_may_be_moved(tmp_path):
    result = fit(config_of(10.0, augmentation=1.0), tmp_path / "run", progress=False)
    images = sample(result.workdir, 200).images
    assert len({image.tobytes() for image in images}) > 150


def test_features_depend_on_the_image_and_stay_within_their_clip_norm():
    images = jax.random.uniform(jax.random.key(0), (20, 28, 28, 1)) ** 3
    found = features(images, 3, 8)
    assert found.shape == (20, num_features((28, 28, 1), 3, 8))
    assert float(jnp.linalg.norm(found, axis=1).max()) < 1.3 * longest(3)
    np.testing.assert_allclose(features(images[:1], 3, 8)[0], found[0], rtol=1e-4, atol=1e-5)  # of others it does not
    np.testing.assert_array_equal(features(images, 3, 8), found)  # the weights are public and fixed


def test_feedback_is_refused():
    config = config_of(1.0)
    config.privacy.update(feedback="local", feedback_l2_norm_clip=1.0)
    with pytest.raises(UserError, match="nothing is left over"):
        fit(config, "unused")


def test_tiles_of_published_images_are_drawn_enlarged(tmp_path):
    config = config_of(10.0, tiles_per_side=2, networks_per_step=2)
    config.train.seed = 0  # tiles of 4x4 pixels are enough for 79%, by the noise two points more or less
    result = fit(config, tmp_path / "run", progress=False)
    published = released_generator(Workdir(result.workdir)).params["images"]
    assert published.shape == (10, 5, 8, 8, 1)
    images, labels, _ = sample(result.workdir, 200)
    assert len({(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}) == 200  # each once
    tile = jax.image.resize(published[3, 1, :4, 4:], (8, 8, 1), "linear")
    apart = [np.abs(np.asarray(tile) * 255 - x.astype(float)).max() for x in images[labels == 3]]
    assert min(apart) <= 1
    scores = evaluate(result.workdir, num_images=1000, metrics=("utility",), classifiers=("logistic_regression",))
    assert scores.gen2real["logistic_regression"].accuracy > 0.75


@pytest.mark.parametrize("networks", [1, 3, 4])
def test_the_parts_of_the_features_are_those_of_the_networks(networks):
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
    whole = features(images, networks, 16)
    parts = [network_features(images, i, i % 2 == 0, networks, 16) for i in range(networks)]
    np.testing.assert_array_equal(jnp.concatenate([*parts, half_size(images)], axis=1), whole)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tiles_per_side": 3}, "tiles_per_side is 3, but images have 8 pixels a side"),
        ({"tiles_per_side": 4}, "tiles of at least 4 pixels"),
        ({"tiles_per_side": 0}, "at least 1"),
        ({"networks_per_step": 5}, "at most method.networks"),
    ],
)
def test_values_that_do_not_fit_are_refused(values, message, tmp_path):
    with pytest.raises(UserError, match=message):
        fit(config_of(1.0, **values), tmp_path / "run", progress=False)
