"""The private mixture as latent space: codes, the generator before and after training, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, fit, load_dataset
from efsgd_jax.config import validate
from efsgd_jax.data import ImageSpec
from efsgd_jax.models.edges import edge_strengths
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.efsgd_mixture.method import Decoder
from efsgd_jax.synthesizers.efsgd_mixture.options import Hyperparameters
from efsgd_jax.synthesizers.efsgd_mixture.training import vector_in_basis
from efsgd_jax.synthesizers.gaussian_mixture.appearance import to_vector
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture, code_scale, draw

SMALL = {"components": 2, "directions": 12, "candidates": 1, "width": 8, "blocks": 2}


def random_mixture(size=64, d=6, classes=3, components=2):
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(classes, components, d, d)))[0]
    basis = np.linalg.qr(rng.normal(size=(size, d)))[0] * (np.arange(d) < d - 1)  # the last direction is left out
    return Mixture(
        means=jnp.asarray(rng.uniform(size=(classes, size)), jnp.float32),
        basis=jnp.asarray(basis, jnp.float32),
        weights=jnp.asarray(rng.dirichlet(np.ones(components), classes), jnp.float32),
        centres=jnp.asarray(rng.normal(size=(classes, components, d)) * (np.arange(d) < d - 1), jnp.float32),
        axes=jnp.asarray(axes, jnp.float32),
        variances=jnp.asarray(rng.uniform(0.1, 2.0, (classes, components, d)), jnp.float32),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on the digits without noise, which a hundred steps change visibly."""
    config = default_config("efsgd_mixture")
    config.privacy.update(epsilon=float("inf"), l2_norm_clip=1.0)
    config.method.update(SMALL)
    config.train.update(steps=100, expected_batch_size=128)
    return fit(config, tmp_path_factory.mktemp("mixture") / "run", progress=False).workdir


def test_the_scale_of_codes_is_that_of_drawn_codes():
    mixture = random_mixture()
    labels = jnp.arange(30_000) % 3
    vectors = jax.vmap(lambda k, y: draw(mixture, k, y))(jax.random.split(jax.random.key(0), 30_000), labels)
    codes = (vectors - mixture.means[labels]) @ mixture.basis
    found = np.sqrt(np.mean(np.square(codes), axis=0))[:-1]
    # A column of zeros in the basis drops that coordinate of what is drawn.
    np.testing.assert_allclose(code_scale(mixture)[:-1], found, rtol=0.02)
    flat = mixture._replace(centres=0 * mixture.centres, variances=0 * mixture.variances)
    np.testing.assert_array_equal(code_scale(flat), 1.0)


def test_what_a_code_keeps_of_a_vector_is_its_projection():
    mixture = random_mixture()
    vector = jnp.asarray(np.random.default_rng(1).uniform(size=64), jnp.float32)
    kept = vector_in_basis(mixture, vector, jnp.int32(1))
    np.testing.assert_allclose(vector_in_basis(mixture, kept, jnp.int32(1)), kept, atol=1e-5)
    np.testing.assert_allclose(mixture.basis.T @ (vector - kept), 0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_before_training_the_generator_is_the_mixture(channels):
    spec = ImageSpec(8, channels, 3)
    hp = Hyperparameters(directions=6, components=2, candidates=1, contrast=1.3, deformation=0.05)
    params = {"mixture": random_mixture(64 * channels)._asdict(), "reranker": jnp.zeros((1, 3))}
    labels, key = jnp.arange(12) % 3, jax.random.key(3)
    want = method_named("gaussian_mixture").make_generate(spec, hp)(params, key, labels)
    params["decoder"] = Decoder(spec, hp).init(jax.random.key(1))
    found = method_named("efsgd_mixture").make_generate(spec, hp)(params, key, labels)
    assert np.std(want) > 0.1
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_training_brings_the_images_of_codes_closer_to_the_real_ones(trained):
    generator = released_generator(Workdir(trained))
    params, spec = generator.params, generator.spec
    hp = Hyperparameters(**SMALL)
    data = load_dataset("digits")
    images, labels = data.test_images, jnp.asarray(data.test_labels)
    mixture = Mixture(**jax.tree.map(jnp.asarray, params["mixture"]))

    def error(decoder_params):
        vectors = jax.vmap(lambda x, y: vector_in_basis(mixture, to_vector(x, hp), y))(jnp.asarray(images), labels)
        keys = jax.random.split(jax.random.key(0), len(labels))
        rebuilt = Decoder(spec, hp)(decoder_params, mixture, vectors, labels, keys)
        return float(jnp.mean(jnp.sum(jnp.square(rebuilt - images / 255.0), axis=(1, 2, 3))))

    untrained = error(Decoder(spec, hp).init(jax.random.key(0)))
    assert error(params["decoder"]) < 0.95 * untrained


def test_odd_sizes_are_refused(tmp_path):
    config = default_config("efsgd_mixture")
    config.data.image_size = 9
    with pytest.raises(UserError, match=r"needs an even image size, not 9; set --config\.data\.image_size=10"):
        fit(config, tmp_path / "run", progress=False)


@pytest.mark.parametrize("key", ["align_spot", "align_lines"])
def test_images_are_not_turned_under_a_network(key):
    config = default_config("efsgd_mixture")
    config.method[key] = True
    with pytest.raises(UserError, match=f"{key}.*False with a network"):
        validate(config)


def test_with_their_weight_edges_are_closer_to_real_ones(trained, tmp_path):
    config = default_config("efsgd_mixture")
    config.privacy.update(epsilon=float("inf"), l2_norm_clip=1.0)
    config.method.update(SMALL, edge_weight=3.0)
    config.train.update(steps=100, expected_batch_size=128)
    fit(config, tmp_path / "run", progress=False)
    labels = jnp.arange(500) % 10

    def strength(run):
        images = released_generator(Workdir(run))
        drawn = jax.jit(images.generate)(images.params, jax.random.key(0), labels)
        return float(jnp.mean(edge_strengths((jnp.clip(drawn, -1, 1) + 1) / 2)))

    real = jnp.asarray(load_dataset("digits").train_images[:500], jnp.float32) / 255
    wanted, without, found = float(jnp.mean(edge_strengths(real))), strength(trained), strength(tmp_path / "run")
    assert without < found
    assert abs(found - wanted) < 0.85 * abs(without - wanted)
