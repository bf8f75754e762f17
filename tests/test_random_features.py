"""The classifier on random features: its features' norm, its solution, and what it can tell apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, fit, load_dataset
from efsgd_jax.privacy import FullBatchMechanism, PlannedPhase, calibrate_mechanism
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.reranking import RerankerOptions, reranker_of
from efsgd_jax.synthesizers.reranking.random_features import features_of, ridge_of
from efsgd_jax.training.views import view_all

OPTIONS = RerankerOptions(reranker="random_features", random_frequencies=60)


def weights_of(data, noise, options=OPTIONS):
    records = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
    mechanism = FullBatchMechanism(len(data.train_labels), noise)
    phase = reranker_of(options).phase(data.spec, PlannedPhase("reranker", mechanism, 1))
    rows = view_all(phase.view, records, {})
    access = mechanism.open(rows, jax.random.key(0), jnp.int32(0), released={})
    return phase.release(phase.step(phase.init(jax.random.key(1), {}), access, jax.random.key(2))[0])


def accuracy(data, weights, options=OPTIONS):
    logs = reranker_of(options).log_probabilities(weights, features_of(jnp.asarray(data.test_images) / 255, options))
    return float(np.mean(np.argmax(logs, 1) == data.test_labels))


@pytest.mark.parametrize("random_input", ["pixels", "oriented_gradients"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3)])
def test_features_have_norm_1_for_every_image(shape, random_input):
    options = dataclasses.replace(OPTIONS, random_input=random_input)
    images = jnp.concatenate([jax.random.uniform(jax.random.key(0), (3, *shape)), jnp.zeros((1, *shape))])
    features = features_of(images, options)
    assert features.shape == (4, 120)
    np.testing.assert_allclose(jnp.linalg.norm(features, axis=1), 1.0, rtol=1e-5)


def test_without_noise_the_weights_are_those_of_ridge_regression():
    data = load_dataset("digits")
    features = np.asarray(features_of(jnp.asarray(data.train_images) / 255, OPTIONS), np.float64)
    targets = np.eye(10)[np.asarray(data.train_labels)]
    ridge = ridge_of(0.0, 120, len(features)) * np.eye(120)
    expected = np.linalg.solve(features.T @ features + ridge, features.T @ targets)
    found = features @ np.asarray(weights_of(data, 0.0))
    # Features are rounded to 8 bits, so that scores differ a little.
    np.testing.assert_allclose(found, features @ expected, atol=0.05)


def test_lambda_follows_the_noise_that_symmetric_noise_has():
    size, std = 200, 3.0
    noise = np.random.default_rng(0).normal(size=(size, size)) * std / 2**0.5
    symmetric = (np.triu(noise, 1) + np.triu(noise, 1).T) + np.diag(np.diag(noise)) * 2**0.5
    assert ridge_of(std, size, 10) == pytest.approx(1.2 * np.linalg.norm(symmetric, 2), rel=0.1)
    assert ridge_of(0.0, size, 60_000) == pytest.approx(3.0)


def test_it_tells_digits_apart_at_epsilon_10():
    data = load_dataset("digits")
    noise = calibrate_mechanism(FullBatchMechanism(len(data.train_labels), 0.0), 1, 10.0, 1e-5).noise_multiplier
    private, open_ = accuracy(data, weights_of(data, noise)), accuracy(data, weights_of(data, 0.0))
    assert open_ > 0.9
    assert 0.7 < private <= open_ + 0.03


def test_a_mixture_can_use_it(tmp_path):
    config = default_config("gaussian_mixture")
    config.method.update(components=1, directions=8, candidates=2, reranker="random_features", random_frequencies=20)
    result = fit(config, tmp_path / "run", progress=False)
    named = {phase["name"]: phase for phase in result.privacy["phases"]}
    assert named["reranker"]["mechanism_parameters"]["steps"] == 1
    config.method.reranker = "forest"
    with pytest.raises(UserError, match="logistic or random_features"):
        fit(config, tmp_path / "other", progress=False)
