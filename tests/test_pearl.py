"""``pearl``: its features' norm, its distance without bias, its critic, and images that a classifier learns from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, evaluate, fit, sample
from efsgd_jax.privacy import epsilon as epsilon_of
from efsgd_jax.privacy import gaussian_event
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.pearl.frequencies import distance, frequencies, waves, weights_of


def config_of(epsilon, **method):
    config = default_config("pearl")
    config.privacy.epsilon = epsilon
    config.method.update(frequencies=300, matching_steps=300, **method)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(config_of(10.0), tmp_path_factory.mktemp("pearl") / "run", progress=False)


def test_features_have_norm_1_and_fixed_frequencies():
    w = frequencies(64, 50, 0.0)
    assert float(jnp.var(w)) == pytest.approx(1 / (0.165 * 64), rel=0.05)
    found = waves(jnp.concatenate([jax.random.uniform(jax.random.key(0), (3, 8, 8, 1)), jnp.zeros((1, 8, 8, 1))]), w)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(w, frequencies(64, 50, 0.0))


def test_the_distance_has_no_bias_towards_images_that_are_alike():
    """Of images from the target's own law it is 0 on average, however few they are; their mean's own is not."""
    w = frequencies(16, 40, 0.0)
    images = jax.random.uniform(jax.random.key(0), (4000, 3, 4, 4, 1))
    target = jnp.mean(waves(images.reshape(-1, 4, 4, 1), w), axis=0)[None]
    groups = jax.vmap(lambda x: waves(x, w))(images)[:, None]
    each = jax.vmap(lambda z: distance(z, target, jnp.ones(40)))(groups)
    naive = jnp.mean(jnp.sum(jnp.square(jnp.mean(groups[:, 0], axis=1) - target), axis=-1))
    error = float(jnp.std(each)) / 4000**0.5
    assert abs(float(jnp.mean(each))) < 4 * error
    assert float(naive) > 20 * error


def test_the_critics_weights_are_a_ratio_of_densities():
    w = frequencies(6, 200_000, 0.0)
    np.testing.assert_allclose(weights_of(jnp.zeros(6), w), 1.0, rtol=1e-4)
    critic = jnp.array([1.5, -0.5, 0.0, 0.0, 0.0, 0.0])
    weights = weights_of(critic, w)
    assert float(jnp.mean(weights)) == pytest.approx(1.0, rel=1e-4)
    moments = jnp.mean(weights[:, None] * jnp.square(w.T), axis=0) * 0.165 * 6
    # Under the weights the variance along each pixel is that of the other normal law.
    precision = 1 + 2 * 2.0 / 12**0.5 * jnp.tanh(critic)
    np.testing.assert_allclose(moments, 1 / precision, rtol=0.1)


def test_one_release_costs_all(run):
    (phase,) = run.privacy["phases"]
    assert phase["name"] == "frequencies"
    sigma = phase["mechanism_parameters"]["noise_multiplier"]
    assert run.epsilon == pytest.approx(epsilon_of(gaussian_event(sigma), 1e-5), rel=1e-3)
    assert set(released_generator(Workdir(run.workdir)).params) == {"generator"}


def test_a_classifier_learns_from_its_images_and_they_differ(run):
    scores = evaluate(run.workdir, num_images=1000, metrics=("utility",), classifiers=("logistic_regression",))
    assert scores.gen2real["logistic_regression"].accuracy > 0.8
    images, labels, _ = sample(run.workdir, 200)
    spread = np.mean([images[labels == k].std(axis=0).mean() for k in range(10)])
    assert spread > 25  # that of the real digits is about 50; of a collapsed generator 0


@pytest.mark.slow
def test_it_may_start_from_a_mixture_and_then_spends_two_parts(tmp_path):
    config = config_of(10.0, start="mixture", components=1, directions=20, blocks=1, reranker_steps=10)
    result = fit(config, tmp_path / "run", progress=False)
    named = {phase["name"] for phase in result.privacy["phases"]}
    assert {"reranker", "class means", "basis", "moments", "frequencies"} == named
    scores = evaluate(result.workdir, num_images=1000, metrics=("utility",), classifiers=("logistic_regression",))
    assert scores.gen2real["logistic_regression"].accuracy > 0.85


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("start", "images", "noise or mixture"), ("images_per_step", 1, "at least 2"), ("bandwidth", -1.0, "at least 0")],
)
def test_values_that_cannot_be_meant_are_refused(key, value, words):
    with pytest.raises(UserError, match=words):
        fit(config_of(1.0, **{key: value}), "unused")
