"""``p3gm``: the divergence between posterior and mixture, and that both networks learn from real images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, evaluate, fit
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, code_scale
from efsgd_jax.synthesizers.p3gm.method import divergence


def mixture_of(seed=0, classes=2, components=3, d=4):
    keys = jax.random.split(jax.random.key(seed), 4)
    axes = jnp.linalg.qr(jax.random.normal(keys[0], (classes, components, d, d)))[0]
    weights = jax.nn.softmax(jax.random.normal(keys[3], (classes, components)))
    return Mixture(
        jnp.zeros((classes, d)), jnp.eye(d), weights, jax.random.normal(keys[1], (classes, components, d)), axes,
        jax.random.uniform(keys[2], (classes, components, d), minval=0.2),
    )  # fmt: skip


def kl(mean, variances, centre, covariance):
    inverse = np.linalg.inv(covariance)
    apart = centre - mean
    logs = np.linalg.slogdet(covariance)[1] - np.sum(np.log(variances))
    return 0.5 * (np.trace(inverse @ np.diag(variances)) + apart @ inverse @ apart - len(mean) + logs)


def test_the_divergence_is_that_of_full_covariances():
    mixture = mixture_of()
    mean, variances = np.array([0.3, -0.2, 0.5, 0.1]), np.array([0.4, 0.1, 0.2, 0.3])
    expected = 0.0
    for j in range(3):
        axes = np.asarray(mixture.axes[1, j], np.float64)
        covariance = axes @ np.diag(mixture.variances[1, j]) @ axes.T
        each = kl(mean, variances, np.asarray(mixture.centres[1, j], np.float64), covariance)
        expected += float(mixture.weights[1, j]) * np.exp(-each)
    found = divergence(mixture, jnp.array(1), jnp.asarray(mean), jnp.asarray(variances))
    assert float(found) == pytest.approx(-np.log(expected), rel=1e-4)


def test_a_posterior_that_is_the_only_component_has_no_divergence():
    mixture = mixture_of(components=1)._replace(axes=jnp.eye(4)[None, None].repeat(2, 0))
    found = divergence(mixture, jnp.array(0), mixture.centres[0, 0], mixture.variances[0, 0])
    assert float(found) == pytest.approx(0.0, abs=1e-5)


def test_directions_without_variance_do_no_harm():
    mixture = mixture_of()
    mixture = mixture._replace(variances=mixture.variances.at[..., 2].set(0.0))
    value, gradient = jax.value_and_grad(lambda v: divergence(mixture, jnp.array(0), jnp.zeros(4), v))(jnp.ones(4))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.all(np.asarray(code_scale(mixture)) > 0)


@pytest.fixture(scope="module")
def config():
    config = default_config("p3gm")
    config.method.update(components=1, directions=16, reranker_steps=20, width=8, blocks=1, mixture_share=0.6)
    config.train.update(steps=30, expected_batch_size=200)
    return config


@pytest.mark.slow
def test_a_run_publishes_the_mixture_and_the_decoder(config, tmp_path):
    run = fit(config, tmp_path / "run", progress=False)
    assert [phase["name"] for phase in run.privacy["phases"]][-1] == "training"
    assert 9.8 < run.epsilon <= 10
    assert set(released_generator(Workdir(run.workdir)).params) == {"mixture", "reranker", "decoder"}
    scores = evaluate(run.workdir, num_images=1000, metrics=("utility",), classifiers=("logistic_regression",))
    assert scores.gen2real["logistic_regression"].accuracy > 0.85


def test_a_negative_weight_is_refused(config):
    wrong = config.copy_and_resolve_references()
    wrong.method.prior_weight = -1.0
    with pytest.raises(UserError, match="prior_weight"):
        fit(wrong, "unused")
