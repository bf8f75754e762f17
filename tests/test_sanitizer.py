"""The sanitiser: exact clip, exact noise, its own for every image, and the chain rule beyond it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.privacy import error_feedback_aggregate
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism
from efsgd_jax.synthesizers.sanitized_gan.sanitizer import make_sanitizer

C, SIGMA = 0.8, 1.07
KEY, UNIT = jax.random.key(7), jnp.array(0)


def sanitizer(sigma=SIGMA, **options):
    return make_sanitizer(error_feedback_aggregate(C, 2 * sigma, jax.random.key(0), expected_batch_size=1, **options))


def test_forwards_it_is_the_identity():
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(sanitizer()(x, (), KEY, UNIT), x)


@pytest.mark.parametrize("length", [0.1, 0.8, 5.0, 1e6])
def test_backwards_it_clips(length):
    direction = jnp.array([0.6, 0.0, -0.8])
    got = jax.grad(lambda x: jnp.vdot(sanitizer(0.0)(x, (), KEY, UNIT), length * direction))(jnp.zeros(3))
    np.testing.assert_allclose(got, min(length, C) * direction, rtol=1e-5)


def test_a_gradient_that_is_not_finite_counts_as_nothing():
    got = jax.grad(lambda x: jnp.vdot(sanitizer(0.0)(x, (), KEY, UNIT), jnp.array([jnp.nan, 1.0])))(jnp.zeros(2))
    np.testing.assert_array_equal(got, 0.0)


def test_noise_has_std_2_c_sigma_and_is_its_own_for_every_image():
    images = jnp.zeros((16, 28, 28, 1))
    sanitize = jax.vmap(sanitizer(), in_axes=(0, None, None, None))
    noise = jax.grad(lambda x: 0.0 * jnp.sum(sanitize(x, (), KEY, UNIT)))(images).reshape(16, -1)
    n = noise.size
    assert float(jnp.std(noise)) == pytest.approx(2 * C * SIGMA, rel=4 / np.sqrt(2 * n))
    assert abs(float(jnp.mean(noise))) < 4 * 2 * C * SIGMA / np.sqrt(n)
    correlations = np.corrcoef(noise) - np.eye(16)
    assert np.abs(correlations).max() < 5 / np.sqrt(784)


def test_the_chain_rule_goes_on_beyond_it():
    a = jnp.array([[2.0, 1.0], [0.0, 3.0]])
    far = jnp.array([30.0, -40.0])

    def loss(p):
        return jnp.vdot(sanitizer(0.0)(a @ p, (), KEY, UNIT), far)

    np.testing.assert_allclose(jax.grad(loss)(jnp.ones(2)), a.T @ (C * far / 50.0), rtol=1e-5)


def test_hidden_feedback_returns_what_clipping_removed():
    sanitize = sanitizer(0.0, feedback="hidden", feedback_l2_norm_clip=10.0)

    def loss(x, residual, length):
        return length * jnp.sum(sanitize(x, residual, KEY, UNIT))

    first, residual = jax.grad(loss, argnums=(0, 1))(jnp.zeros(1), jnp.zeros(1), 3.0)
    assert float(first[0]) == pytest.approx(C, rel=1e-5)
    assert float(residual[0]) == pytest.approx(3.0 - C, rel=1e-5)
    second, residual = jax.grad(loss, argnums=(0, 1))(jnp.zeros(1), residual, 0.0)
    assert float(second[0]) == pytest.approx(3.0 - C, rel=1e-5)
    assert float(residual[0]) == pytest.approx(0.0, abs=1e-5)


def test_local_feedback_keeps_a_residual_for_each_shard():
    m = ShardMechanism(40, 4, "round_robin", 0.0, C, images_per_step=2, feedback="local", feedback_l2_norm_clip=9.0,
                       feedback_decay=0.0)  # fmt: skip
    m = m._replace(feedback_decay=0.9)
    transform = m.transform(jax.random.key(0))
    sanitize = make_sanitizer(transform)
    residual = transform.init(jnp.zeros(3)).residual
    assert residual.shape == (4, 3)

    def loss(x, residual):
        return jnp.sum(2.0 * sanitize(x, residual, KEY, jnp.array(2)))

    gradient, residual = jax.grad(loss, argnums=(0, 1))(jnp.zeros(3), residual)
    np.testing.assert_allclose(gradient, C / np.sqrt(3) / 2, rtol=1e-5)  # divided by two images
    np.testing.assert_allclose(residual[2], 0.9 * (2.0 - C / np.sqrt(3)), rtol=1e-5)
    np.testing.assert_array_equal(residual[jnp.array([0, 1, 3])], 0.0)
