"""The diffusion of residuals: preconditioning, loss and sampler in closed form, and what training changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, fit, load_dataset, sample
from efsgd_jax.privacy import clipping_plan
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.efsgd_mixture.training import Start
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture
from efsgd_jax.synthesizers.private_diffusion.edm import denoised, denoising_loss, guided, sampled
from efsgd_jax.synthesizers.private_diffusion.method import ResidualModel
from efsgd_jax.synthesizers.private_diffusion.options import Hyperparameters

STD = 0.3


def nothing(scaled, levels):
    return jnp.zeros_like(scaled)


def test_without_a_network_the_loss_of_white_samples_is_one():
    samples = STD * jax.random.normal(jax.random.key(0), (2000, 50))

    def loss(x, key):
        return denoising_loss(nothing, x, key, std=STD, largest=5.0, draws=2)

    losses = jax.vmap(loss)(samples, jax.random.split(jax.random.key(1), 2000))
    assert np.mean(losses) == pytest.approx(1.0, abs=0.02)


def best_network(mean, std):
    """The F for which D is the posterior mean of samples N(mean, std^2)."""

    def network(scaled, levels):
        sigma = jnp.exp(levels)[:, None]
        total = jnp.sqrt(sigma**2 + STD**2)
        noisy = scaled * total
        wanted = (std**2 * noisy + sigma**2 * mean) / (std**2 + sigma**2)
        return (wanted - STD**2 / total**2 * noisy) / (sigma * STD / total)

    return network


def white(shape):
    return lambda i: jax.random.normal(jax.random.fold_in(jax.random.key(0), i), shape)


@pytest.mark.parametrize("churn", [0.0, 0.3])
@pytest.mark.parametrize(("mean", "std"), [(0.0, STD), (0.5, 0.1), (-1.0, 0.6)])
def test_the_sampler_draws_from_the_law_of_its_denoiser(mean, std, churn):
    network, sigma = best_network(mean, std), jnp.array([0.7])
    wanted = (std**2 * 1.1 + sigma**2 * mean) / (std**2 + sigma**2)
    np.testing.assert_allclose(denoised(network, jnp.array([[1.1]]), sigma, STD)[0], wanted, rtol=1e-5)
    drawn = sampled(network, white((20_000, 1)), std=STD, largest=80.0, smallest=0.002, steps=60, churn=churn)
    assert np.mean(drawn) == pytest.approx(mean, abs=0.02)
    assert np.std(drawn) == pytest.approx(std, rel=0.05)


def test_one_sampling_step_is_the_denoised_noise():
    network, noise = best_network(0.5, 0.1), white((5, 1))
    want = denoised(network, 2.0 * noise(0), jnp.full(5, 2.0), STD)
    np.testing.assert_allclose(sampled(network, noise, std=STD, largest=2.0, smallest=0.1, steps=1), want, rtol=1e-6)


def test_churn_decides_how_the_first_noise_is_forgotten():
    """A deterministic sampler maps noise to samples; a stochastic one draws several samples from the same noise."""
    network, first = best_network(0.5, 0.1), white((4000, 1))(0)

    def end(seed, churn):
        def noise(i):
            later = jax.random.normal(jax.random.fold_in(jax.random.key(seed), i), first.shape)
            return jnp.where(jnp.asarray(i) == 0, first, later)

        return np.ravel(sampled(network, noise, std=STD, largest=5.0, smallest=0.01, steps=30, churn=churn))

    np.testing.assert_array_equal(end(1, 0.0), end(2, 0.0))
    assert np.corrcoef(end(1, 0.4), end(2, 0.4))[0, 1] < 0.5


def test_levels_follow_their_mean_and_spread():
    """The loss sees levels through the network's second argument."""
    seen = []

    def network(scaled, levels):
        seen.append(levels)
        return jnp.zeros_like(scaled)

    options = {"std": STD, "largest": 1e9, "draws": 5000, "level_shift": 0.7, "level_std": 0.4}
    denoising_loss(network, jnp.zeros(1), jax.random.key(0), **options)
    assert np.mean(seen[0]) == pytest.approx(np.log(STD) + 0.7, abs=0.02)
    assert np.std(seen[0]) == pytest.approx(0.4, abs=0.02)


def test_guidance_moves_away_from_the_unknown_class():
    x, levels = jnp.zeros((2, 3)), jnp.zeros(2)
    network = guided(lambda x, s: x + 3.0, lambda x, s: x + 1.0, 1.5)
    np.testing.assert_allclose(network(x, levels), 4.0)


def model_of(**options):
    spec = load_dataset("digits").spec
    model = ResidualModel(spec, Hyperparameters(width=8, blocks=1, directions=5, **options))
    params = model.init(jax.random.key(0))
    # The last layer's weights are zero at first, and the result would not depend on anything.
    params = jax.tree.map(lambda p: p + 0.05 * jax.random.normal(jax.random.key(1), p.shape), params)
    start = Start(jnp.full((4, *spec.shape), 0.4), jnp.ones((4, 5)))
    return model, params, start


@pytest.mark.parametrize("options", [{}, {"levels": 3}, {"levels": 2, "compute_dtype": "bfloat16"}], ids=str)
def test_images_depend_on_class_and_noise(options):
    model, params, start = model_of(**options)
    labels, keys = jnp.arange(4), jax.random.split(jax.random.key(2), 4)
    images = model.sample(params, start, labels, keys)
    assert images.shape == start.images.shape
    assert images.dtype == jnp.float32
    assert np.isfinite(images).all()
    assert not np.allclose(images, model.sample(params, start, labels[::-1], keys), atol=1e-3)
    assert not np.allclose(images, model.sample(params, start, labels, keys[::-1]), atol=1e-3)


def test_bfloat16_is_close_to_float32():
    labels, keys = jnp.arange(4), jax.random.split(jax.random.key(2), 4)
    (model, params, start), (half, _, _) = model_of(), model_of(compute_dtype="bfloat16")
    whole, rounded = (m.sample(params, start, labels, keys) for m in (model, half))
    assert 0 < np.max(np.abs(whole - rounded)) < 0.05 * np.max(np.abs(whole))


def test_a_hidden_class_is_the_unknown_one():
    model, params, start = model_of(label_dropout=1 - 1e-9, guidance=0.0)
    one = Start(start.images[:1], start.codes[:1])
    losses = [model.loss(params, one, one.images[0], jnp.int32(k), jax.random.key(0)) for k in range(3)]
    np.testing.assert_allclose(losses, losses[0])
    drawn = [model.sample(params, one, jnp.array([k]), jax.random.split(jax.random.key(1), 1)) for k in range(3)]
    np.testing.assert_allclose(drawn[1], drawn[0], atol=1e-5)
    shown, _, _ = model_of()
    seen = [float(shown.loss(params, one, one.images[0], jnp.int32(k), jax.random.key(0))) for k in range(3)]
    assert len(set(seen)) == 3


def test_training_adds_what_the_basis_lacks(tmp_path):
    """Without noise, on the digits: images get detail outside of the few principal directions, about as much as real
    ones have."""
    config = default_config("private_diffusion")
    config.privacy.update(epsilon=float("inf"), l2_norm_clip=1.0)
    config.method.update(components=2, directions=8, candidates=1, width=16, blocks=2, draws=2)
    config.train.update(steps=150, expected_batch_size=128)
    run = fit(config, tmp_path / "run", progress=False).workdir
    data, drawn = load_dataset("digits"), sample(run, 500)
    mixture = Mixture(**released_generator(Workdir(run)).params["mixture"])

    def lacking(images, labels):
        vectors = images.reshape(len(images), -1) / 255.0 - mixture.means[labels]
        return np.mean(np.square(vectors - vectors @ mixture.basis @ mixture.basis.T))

    real, found = lacking(data.test_images, data.test_labels), lacking(drawn.images, drawn.labels)
    assert 0.5 * real < found < 1.5 * real


def test_convolutions_of_several_draws_are_not_formed_by_differentiation():
    spec, hp = load_dataset("digits").spec, Hyperparameters(draws=3, width=4, blocks=1, directions=5)
    model, image = ResidualModel(spec, hp), jnp.zeros(load_dataset("digits").spec.shape)
    params = jax.eval_shape(model.init, jax.random.key(0))

    def loss(params, example, key):
        start, image = example
        return model.loss(params, start, image, jnp.int32(0), key), None

    start = Start(image[None], jnp.zeros((1, 5)))
    plan = clipping_plan(loss, params, (start, image), jax.random.key(0))
    assert {how for name, how in plan.items() if "Conv" in name and "kernel" in name} == {"patches"}


def test_odd_sizes_are_refused(tmp_path):
    config = default_config("private_diffusion")
    config.data.image_size = 9
    with pytest.raises(UserError, match=r"private_diffusion needs an even image size, not 9"):
        fit(config, tmp_path / "run", progress=False)
    config.data.image_size, config.method.levels = 10, 2
    with pytest.raises(UserError, match=r"a multiple of 4, not 10; set --config.data.image_size=12"):
        fit(config, tmp_path / "run", progress=False)
    config.data.image_size, config.method.guidance = 8, 1.5
    with pytest.raises(UserError, match=r"guidance is 1.5; .*label_dropout"):
        fit(config, tmp_path / "run", progress=False)


def test_a_guidance_threshold_needs_another_class(tmp_path):
    """Before any step: samples are drawn after all of epsilon is spent."""
    config = default_config("private_diffusion")
    config.data.classes = "1"
    config.privacy.epsilon = 10.0
    config.method.update(label_dropout=0.1, guidance=2.0, guidance_threshold=0.5)
    with pytest.raises(UserError, match="guidance_threshold turns to other classes"):
        fit(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
