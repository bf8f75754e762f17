"""Full-batch releases: the noise has the law that is claimed, and no example moves a sum further than is claimed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax.privacy.accounting import epsilon, gaussian_event
from efsgd_jax.privacy.noise import NOISE_WIDTH
from efsgd_jax.privacy.one_shot import NoiseSupply, Release, gaussian_release, share_noise
from efsgd_jax.synthesizers.gaussian_mixture import fit as mixture_fit
from efsgd_jax.synthesizers.gaussian_mixture import reranker as reranker
from efsgd_jax.synthesizers.gaussian_mixture.fit import FitOptions, clip_rows

D, K, M = 6, 3, 2


def test_noise_is_isotropic_in_the_frobenius_norm():
    (sums, squares) = gaussian_release(
        jax.random.key(0), {"a": jnp.zeros(20_000)}, 0.5, 3.0, squares=jnp.zeros((20_000, 2, 2))
    )
    assert float(jnp.std(sums["a"])) == pytest.approx(1.5, rel=0.03)
    np.testing.assert_array_equal(squares, jnp.swapaxes(squares, 1, 2))
    coordinates = jnp.stack([squares[:, 0, 0], squares[:, 1, 1], 2**0.5 * squares[:, 0, 1]])
    np.testing.assert_allclose(np.cov(coordinates), 2.25 * np.eye(3), atol=0.1)


def test_leaves_get_different_noise():
    (a, b), c = gaussian_release(jax.random.key(0), [jnp.zeros(50), jnp.zeros(50)], 1.0, 1.0, squares=jnp.zeros((5, 5)))
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
    np.testing.assert_allclose(clip_rows(rows, 1.0), [[0.6, 0.8], [0.3, 0.4], [0, 0], [0, 0]], rtol=1e-6)


@pytest.fixture
def recorded(monkeypatch):
    """What each release of sigma 1 would be without noise, in standard deviations of the noise, as one vector in which
    the l2 norm is what counts: so that one example must move it by at most 1."""
    releases = []

    class Recording(Release):
        def __init__(self, noise, sensitivity, noise_multiplier):
            super().__init__(noise, sensitivity, noise_multiplier)
            releases.append([])
            self._supply = NoNoise()

        def _noised(self, total, unit, count, bits, *, symmetric=False):
            value = super()._noised(total, unit, count, bits, symmetric=symmetric)
            releases[-1].append(np.ravel(np.float64(value)) / (self._unit * NOISE_WIDTH))
            return value

    for module in (mixture_fit, reranker):
        monkeypatch.setattr(module, "Release", Recording)
    return releases


class NoNoise(NoiseSupply):
    def __init__(self):
        pass

    def take(self, shape):
        return jnp.zeros(shape, jnp.int32)


def moved(releases):
    before, after = (np.concatenate(parts) for parts in releases)
    return np.linalg.norm(after - before)


NONE = NoNoise()
RELEASES = {
    "means": lambda x, y: mixture_fit._class_means(NONE, x, y, K, 0.7, 1.0),
    "basis": lambda x, y: mixture_fit._principal_basis(NONE, x, FitOptions(directions=3, deviation_clip=0.9), 1.0),
    "clusters": lambda x, y: mixture_fit._cluster_step(NONE, clip_rows(x, 1.0), y, CENTRES, 1.0),
    "moments": lambda x, y: mixture_fit._moments(NONE, clip_rows(x, 1.0), y, CENTRES, jnp.ones(D, bool), 0.8, 1.0),
}
CENTRES = 0.4 * jax.random.normal(jax.random.key(7), (K, M, D))


@pytest.mark.parametrize("name", RELEASES)
@pytest.mark.parametrize("length", [0.1, 1.0, 1e6])
def test_an_example_moves_no_sum_of_the_mixture_further_than_claimed(recorded, name, length):
    x = jax.random.normal(jax.random.key(1), (30, D))
    y = jax.random.randint(jax.random.key(2), (30,), 0, K)
    moves = []
    for seed in range(20):
        one = length * jax.random.normal(jax.random.key(100 + seed), (1, D))
        recorded.clear()
        RELEASES[name](x, y)
        RELEASES[name](jnp.concatenate([x, one]), jnp.concatenate([y, jnp.array([seed % K])]))
        moves.append(moved(recorded))
    assert max(moves) <= 1
    if length > 1:
        assert max(moves) > 0.6  # the claim is not far from the truth


def test_an_example_moves_no_step_of_the_reranker_further_than_claimed(recorded, monkeypatch):
    # Weights must not depend on the example, as they do not once they are given: so one step from zero.
    features = jax.random.normal(jax.random.key(0), (30, D))
    labels = jax.random.randint(jax.random.key(1), (30,), 0, K)
    monkeypatch.setattr(jax.lax, "fori_loop", lambda low, high, body, carry: body(0, carry))
    for scale in (0.1, 100.0):
        recorded.clear()
        one = scale * jnp.ones((1, D))
        options = {"steps": 1, "l2_norm_clip": 0.6, "learning_rate": 1.0}
        reranker.fit_reranker(jax.random.key(0), features, labels, K, 1.0, **options)
        more = jnp.concatenate([features, one]), jnp.concatenate([labels, jnp.array([1])])
        reranker.fit_reranker(jax.random.key(0), *more, K, 1.0, **options)
        move = moved(recorded)
        assert move <= 1
        assert move == pytest.approx(1.0, rel=0.01) if scale > 1 else move < 1


def test_a_fit_spends_what_it_is_given(monkeypatch):
    """The noise multipliers of all releases of a fit compose to the one asked for."""
    spent = []

    class Counting(Release):
        def __init__(self, noise, sensitivity, noise_multiplier):
            spent.append(noise_multiplier)
            super().__init__(noise, sensitivity, noise_multiplier)

    monkeypatch.setattr(mixture_fit, "Release", Counting)
    monkeypatch.setattr(reranker, "Release", Counting)
    images = jax.random.randint(jax.random.key(0), (50, 4, 4, 1), 0, 256).astype(jnp.uint8)
    labels = jnp.arange(50) % K
    for components in (1, 2):
        spent.clear()
        options = FitOptions(components=components, directions=3)
        mixture_fit.fit_mixture(jax.random.key(0), images.reshape(50, -1) / 255, labels, K, 0.7, options)
        assert len(spent) == (3 if components == 1 else 3 + options.cluster_steps)
        assert sum(s**-2 for s in spent) == pytest.approx(0.7**-2)
    spent.clear()
    monkeypatch.setattr(
        jax.lax, "fori_loop", lambda low, high, body, carry: [body(t, carry) for t in range(low, high)][-1]
    )
    features = reranker.oriented_gradients(images / 255.0)
    reranker.fit_reranker(jax.random.key(0), features, labels, K, 0.7, steps=5, l2_norm_clip=1.0, learning_rate=1.0)
    assert sum(s**-2 for s in spent) == pytest.approx(0.7**-2)
