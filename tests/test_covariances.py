"""Covariances from noisy second moments: as much variance as the data has, and closer to it than the noisy ones."""

import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.synthesizers.gaussian_mixture.covariances import positive, shrunk

D, GROUPS = 30, 8


def noisy_covariances(std, seed=0):
    """Covariances that fall off quickly and differ in size and direction, and the same with noise."""
    rng = np.random.default_rng(seed)
    scale = np.diag(0.8 ** np.arange(D))
    factors = scale @ (np.eye(D) + rng.normal(0, 0.5 / D**0.5, (GROUPS, D, D)))
    true = factors @ factors.transpose(0, 2, 1) * rng.uniform(0.5, 2, GROUPS)[:, None, None]
    noise = rng.normal(0, std, (GROUPS, D, D))
    return true, true + (noise + noise.transpose(0, 2, 1)) / 2


def test_shrinkage_and_projection_keep_the_variance_and_reduce_the_error():
    std = 0.1
    true, noisy = noisy_covariances(std)
    target = jnp.broadcast_to(jnp.asarray(noisy.mean(0)), noisy.shape)
    found = np.asarray(positive(shrunk(jnp.asarray(noisy), jnp.full(GROUPS, std), target)))
    clipped = np.stack([(v * np.maximum(w, 0)) @ v.T for w, v in map(np.linalg.eigh, noisy)])

    def trace(x):
        return np.trace(x, axis1=1, axis2=2)

    assert np.all(np.linalg.eigvalsh(found) > -1e-5)
    assert trace(found) == pytest.approx(trace(true), rel=0.4)
    # Negative eigenvalues set to 0 leave the variance of the noise.
    assert np.all(trace(clipped) > 1.2 * trace(true))
    assert np.linalg.norm(found - true) < 0.7 * min(np.linalg.norm(x - true) for x in (noisy, clipped))


def test_without_noise_nothing_changes():
    true, _ = noisy_covariances(0.0)
    target = jnp.broadcast_to(jnp.asarray(true.mean(0)), true.shape)
    np.testing.assert_allclose(positive(shrunk(jnp.asarray(true), jnp.zeros(GROUPS), target)), true, atol=2e-5)


def test_a_covariance_of_noise_alone_is_the_target_or_zero():
    _, noisy = noisy_covariances(1e6)
    target = jnp.broadcast_to(jnp.eye(D), noisy.shape)
    found = shrunk(jnp.asarray(noisy), jnp.full(GROUPS, 1e6), target)
    np.testing.assert_allclose(found, target, atol=1e-3)
    np.testing.assert_array_equal(positive(-target), jnp.zeros(target.shape))


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0, 1e6])
@pytest.mark.parametrize("std", [0.0, 1e-8, 1.0, 1e8])
def test_odd_scales_give_finite_covariances(scale, std):
    half = np.random.default_rng(0).normal(size=(3, 6, 6))
    noisy = jnp.asarray(std * (half + half.transpose(0, 2, 1)), jnp.float32)
    target = jnp.broadcast_to(jnp.asarray(scale * half[0] @ half[0].T, jnp.float32), noisy.shape)
    found = positive(shrunk(noisy, jnp.full(3, std), target))
    assert np.all(np.isfinite(found))
    assert np.min(np.linalg.eigvalsh(found)) >= -1e-4 * np.max(np.abs(found))
