"""``reranker=whitened``: its directions, its weights of the features, and its place in the plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import default_config, fit
from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import FullBatchMechanism, PlannedPhase
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.reranking import RerankerOptions
from efsgd_jax.synthesizers.reranking.oriented_gradients import CONSTANT, LONGEST
from efsgd_jax.synthesizers.reranking.whitened import DIRECTIONS, Directions, of_features, reranker_phase, whitening


def samples(seed=0, n=4000, size=12):
    rng = np.random.default_rng(seed)
    free = rng.normal(size=(n, size - 1)) * np.linspace(0.01, 1.0, size - 1) + 0.3
    free[:, 3] = 0.5  # a feature without variance
    return jnp.asarray(np.c_[free, np.full(n, CONSTANT)], jnp.float32)


def directions_of(found, d=5):
    mean = jnp.mean(found, axis=0)
    return whitening(mean, jnp.cov(found.T, bias=True), d)


def test_coordinates_have_a_mean_square_norm_of_one_and_partly_equal_spreads():
    found = samples()
    directions = directions_of(found)
    z = (found - directions.mean) @ directions.projection
    assert float(jnp.mean(jnp.sum(z**2, axis=1))) == pytest.approx(1.0, rel=1e-3)
    # Divided by the root of the standard deviation, a variance becomes its own root.
    before = np.linalg.eigvalsh(np.cov(np.asarray(found).T, bias=True))[::-1][:5]
    after = np.var(np.asarray(z), axis=0)
    np.testing.assert_allclose(after / after[0], np.sqrt(before / before[0]), rtol=1e-2)


def test_directions_in_which_images_do_not_differ_are_left_out():
    directions = directions_of(samples(), d=12)
    lengths = jnp.linalg.norm(directions.projection, axis=0)
    assert float(lengths[-1]) == float(lengths[-2]) == 0.0  # the constant, and the feature without variance
    assert jnp.isfinite(directions.projection).all()
    nothing = whitening(jnp.zeros(4), jnp.zeros((4, 4)), 3)
    assert not jnp.any(nothing.projection)


def test_weights_of_features_give_the_logits_of_coordinates():
    found, weights = samples(), jax.random.normal(jax.random.key(0), (6, 3))
    directions = directions_of(found)
    z = jnp.concatenate([(found - directions.mean) @ directions.projection, jnp.full((len(found), 1), CONSTANT)], 1)
    np.testing.assert_allclose(found @ of_features(directions, weights), z @ weights, atol=1e-4)


@pytest.mark.parametrize("kind", ["black", "white", "random", "one pixel"])
def test_coordinates_are_bounded_whatever_the_image_is(kind):
    image = {"black": np.zeros((8, 8, 1)), "white": np.full((8, 8, 1), 255), "one pixel": np.zeros((8, 8, 1))}
    image["one pixel"][3, 4] = 255
    pixels = image.get(kind, np.random.default_rng(0).integers(0, 256, (8, 8, 1))).astype(np.uint8)
    spec, plan = ImageSpec(8, 1, 3), PlannedPhase("reranker", FullBatchMechanism(10, 1.0), 1)
    size = method_named("gaussian_mixture").released_like(spec, default_hp())["reranker"].shape[0]
    wild = Directions(jnp.zeros(size), 1e6 * jax.random.normal(jax.random.key(1), (size, 4)))
    view = reranker_phase(spec, RerankerOptions(reranker="whitened", reranker_directions=4), plan).view
    row = view(Record(jnp.asarray(pixels), jnp.array(1)), {DIRECTIONS: wild})
    assert float(jnp.linalg.norm(row.features)) * LONGEST / 2**8 <= LONGEST


def default_hp():
    return method_named("gaussian_mixture").read(default_config("gaussian_mixture").method)


def test_it_follows_the_mixture_and_costs_its_share(tmp_path):
    config = default_config("gaussian_mixture")
    config.method.update(components=1, directions=10, reranker="whitened", reranker_steps=10, reranker_share=0.3)
    run = fit(config, tmp_path / "run", progress=False)
    phases = run.privacy["phases"]
    assert [p["name"] for p in phases] == ["class means", "basis", "moments", "reranker"]
    shares = [p["mechanism_parameters"]["share"] for p in phases]
    assert shares[-1] == pytest.approx(0.3)
    assert sum(shares) == pytest.approx(1.0)
    assert run.epsilon <= config.privacy.epsilon
