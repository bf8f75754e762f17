"""The diffusion of residuals: preconditioning, loss and sampler in closed form, and what training changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efsgd_jax import UserError, default_config, fit, load_dataset, sample
from efsgd_jax.privacy import clipping_plan
from efsgd_jax.runs.sampling import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.efsgd_mixture.training import Start
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture
from efsgd_jax.synthesizers.private_diffusion.edm import denoised, denoising_loss, sampled
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


@pytest.mark.parametrize(("mean", "std"), [(0.0, STD), (0.5, 0.1), (-1.0, 0.6)])
def test_the_sampler_draws_from_the_law_of_its_denoiser(mean, std):
    network, sigma = best_network(mean, std), jnp.array([0.7])
    wanted = (std**2 * 1.1 + sigma**2 * mean) / (std**2 + sigma**2)
    np.testing.assert_allclose(denoised(network, jnp.array([[1.1]]), sigma, STD)[0], wanted, rtol=1e-5)
    noise = jax.random.normal(jax.random.key(0), (20_000, 1))
    drawn = sampled(network, noise, std=STD, largest=80.0, smallest=0.002, steps=60)
    assert np.mean(drawn) == pytest.approx(mean, abs=0.02)
    assert np.std(drawn) == pytest.approx(std, rel=0.05)


def test_one_sampling_step_is_the_denoised_noise():
    network, noise = best_network(0.5, 0.1), jax.random.normal(jax.random.key(0), (5, 1))
    want = denoised(network, 2.0 * noise, jnp.full(5, 2.0), STD)
    np.testing.assert_allclose(sampled(network, noise, std=STD, largest=2.0, smallest=0.1, steps=1), want, rtol=1e-6)


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
