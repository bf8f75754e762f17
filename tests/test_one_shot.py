"""Full-batch releases: the noise has the law that is claimed, and no example moves a sum further than is claimed."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_releases import (
    MIXTURE,
    NoNoise,
    one_step,
    plan_of,
    release_of_mixture,
    release_of_random_features,
    release_of_reranker,
)

from efsgd_jax.data import ImageSpec
from efsgd_jax.privacy import sum_access
from efsgd_jax.privacy.accounting import epsilon, gaussian_event
from efsgd_jax.privacy.noise import NOISE_WIDTH
from efsgd_jax.privacy.one_shot import Release, gaussian_release, share_noise
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.gaussian_mixture.fit import Vector
from efsgd_jax.synthesizers.gaussian_mixture.method import phases
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters
from efsgd_jax.synthesizers.gaussian_mixture.space import Latent
from efsgd_jax.synthesizers.reranking.oriented_gradients import features_of
from efsgd_jax.training.compilation import compiler_options

D, K, M = 9, 3, 2


def test_noise_is_isotropic_in_the_frobenius_norm():
    draw = jax.jit(
        lambda key: gaussian_release(key, {"a": jnp.zeros(20_000)}, 0.5, 3.0, squares=jnp.zeros((20_000, 2, 2)))
    )
    sums, squares = draw(jax.random.key(0))
    assert float(jnp.std(sums["a"])) == pytest.approx(1.5, rel=0.03)
    np.testing.assert_array_equal(squares, jnp.swapaxes(squares, 1, 2))
    coordinates = jnp.stack([squares[:, 0, 0], squares[:, 1, 1], 2**0.5 * squares[:, 0, 1]])
    np.testing.assert_allclose(np.cov(coordinates), 2.25 * np.eye(3), atol=0.1)


def test_leaves_get_different_noise():
    draw = jax.jit(
        lambda key: gaussian_release(key, [jnp.zeros(50), jnp.zeros(50)], 1.0, 1.0, squares=jnp.zeros((5, 5)))
    )
    (a, b), c = draw(jax.random.key(0))
    together = np.concatenate([a, b, np.asarray(c)[np.triu_indices(5)]])
    assert len(np.unique(together)) == len(together)


def test_shares_compose_to_the_whole():
    sigmas = share_noise(1.3, [0.1, 0.2, 0.7])
    assert sum(s**-2 for s in sigmas) == pytest.approx(1.3**-2)
    import dp_accounting

    parts = dp_accounting.ComposedDpEvent([gaussian_event(s) for s in sigmas])
    assert epsilon(parts, 1e-5, grid=1e-3) == pytest.approx(epsilon(gaussian_event(1.3), 1e-5, grid=1e-3), rel=1e-3)
    with pytest.raises(ValueError, match="positive"):
        share_noise(1.0, [0.6, 0.6])


def test_rows_are_clipped_and_what_is_not_finite_is_nothing():
    rows = jnp.array([[3.0, 4.0], [0.3, 0.4], [jnp.nan, 1.0], [jnp.inf, 0.0]])
    space = Latent(jnp.zeros((1, 2)), jnp.eye(2), jnp.ones(2), jnp.ones(2))
    codes = jax.vmap(lambda x: space.code(Vector(x, 0)))(rows)
    np.testing.assert_allclose(codes, [[0.6, 0.8], [0.3, 0.4], [0, 0], [0, 0]], rtol=1e-6)


class Recording(Release):
    """What each release of sigma 1 would be without noise, in standard deviations of the noise."""

    kept: ClassVar[list] = []

    def __init__(self, noise, sensitivity, noise_multiplier):
        super().__init__(NoNoise(), sensitivity, noise_multiplier)

    def noised(self, exact, count):
        value = super().noised(exact, count)
        self.kept.append((jnp.ravel(value), 1 / (self._unit * NOISE_WIDTH)))
        return value


@functools.cache
def recorded(release):
    """``f(*arrays)``: the vectors of a release, in whose l2 norm one example must move them by at most 1."""
    scales = []

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def values(*arrays):
        Recording.kept.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sum_access, "Release", Recording)
            release(*arrays)
        scales[:] = [scale for _, scale in Recording.kept]
        return [value for value, _ in Recording.kept]

    def scaled(*arrays):
        found = values(*arrays)
        return np.concatenate([np.float64(v) * s for v, s in zip(found, scales, strict=True)])

    return scaled


CENTRES = 0.4 * jax.random.normal(jax.random.key(7), (K, M, D))


@functools.cache
def of_mixture(name):
    return recorded(lambda x, y: release_of_mixture(name, x, y, K, CENTRES, mean_clip=0.7, deviation_clip=0.9))


@pytest.mark.parametrize("name", MIXTURE)
@pytest.mark.parametrize("length", [0.1, 1.0, 1e6])
def test_an_example_moves_no_sum_of_the_mixture_further_than_claimed(name, length):
    x = jax.random.normal(jax.random.key(1), (30, D))
    y = jax.random.randint(jax.random.key(2), (30,), 0, K)
    moves = []
    for seed in range(20):
        one = length * jax.random.normal(jax.random.key(100 + seed), (1, D))
        more = jnp.concatenate([x, one]), jnp.append(y, seed % K)
        moves.append(np.linalg.norm(of_mixture(name)(x, y) - of_mixture(name)(*more)))
    assert max(moves) <= 1
    if length > 1:
        assert max(moves) > 0.6  # the claim is not far from the truth


def test_an_example_moves_no_step_of_the_reranker_further_than_claimed():
    # Weights must not depend on the example, as they do not once they are given: so one step from zero.
    spec = ImageSpec(8, 1, K)
    features = features_of(jax.random.uniform(jax.random.key(0), (31, 8, 8, 1)))
    labels = jax.random.randint(jax.random.key(1), (31,), 0, K)
    values = recorded(lambda x, y: release_of_reranker(x, y, spec, reranker_clip=0.6))
    for length, short in ((1.0, False), (0.01, True)):
        rows = features.at[30].multiply(length)
        move = np.linalg.norm(values(rows, labels) - values(rows[:30], labels[:30]))
        assert move <= 1
        assert move < 0.1 if short else move == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("length", [0.1, 1.0, 1e6])
def test_an_example_moves_the_ridge_regression_no_further_than_claimed(length):
    features = jax.random.normal(jax.random.key(0), (31, 8))
    features = features / jnp.linalg.norm(features, axis=1, keepdims=True)
    labels = jax.random.randint(jax.random.key(1), (31,), 0, K)
    values = recorded(lambda x, y: release_of_random_features(x, y, ImageSpec(8, 1, K)))
    rows = features.at[30].multiply(length)
    move = np.linalg.norm(values(rows, labels) - values(rows[:30], labels[:30]))
    assert move <= 1
    assert move < 0.1 if length < 1 else move == pytest.approx(1.0, rel=0.02)  # both sums together


@pytest.mark.parametrize("components", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_fit_spends_what_it_is_given(components, monkeypatch):
    """The noise multipliers of all releases of a fit compose to the one asked for."""
    spent = []

    class Counting(Release):
        def __init__(self, noise, sensitivity, noise_multiplier):
            spent.append(noise_multiplier)
            super().__init__(noise, sensitivity, noise_multiplier)

    monkeypatch.setattr(sum_access, "Release", Counting)
    images = jax.random.randint(jax.random.key(0), (50, 8, 8, 1), 0, 256).astype(jnp.uint8)
    records = Record(images, jnp.arange(50) % K)
    hp = Hyperparameters(components=components, directions=3, reranker_steps=2, cluster_steps=3)
    plan = list(plan_of(hp, 50, 0.7).values())
    released = {}
    for phase in phases(ImageSpec(8, 1, K), hp, plan):
        rows = jax.eval_shape(jax.vmap(phase.view, (0, None)), records, released)
        rows = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), rows)
        for _ in range(phase.plan.steps):
            like = jax.eval_shape(lambda r, p=phase, x=rows: p.release(one_step(p, x, r)), released)
        released[phase.name] = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    assert len(spent) == 2 + 3 + (components > 1) * 3
    assert sum(s**-2 for s in spent) == pytest.approx(0.7**-2)
