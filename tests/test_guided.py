"""Guided sampling: ordinary guidance bit for bit without a trigger, the formula and its limits, and the diffusion's."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from guidance import CLASSES, SCALE, network_of, noise_of, policy_of

from efsgd_jax import UserError, default_config, fit
from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.alternatives import mixtures
from efsgd_jax.models.guided import guided, reanchored
from efsgd_jax.synthesizers.efsgd_mixture.training import Start
from efsgd_jax.synthesizers.private_diffusion import edm
from efsgd_jax.synthesizers.private_diffusion.method import ResidualModel
from efsgd_jax.synthesizers.private_diffusion.options import Hyperparameters


def drawn(step, x, levels):
    """Images by Euler steps from noise, where ``step(x, sigma)`` is the clean image."""

    def advance(x, pair):
        sigma, after = pair
        clean = step(x, jnp.full(len(x), sigma)).astype(jnp.float32)
        return x + (after - sigma) * (x - clean) / sigma, None

    return jax.lax.scan(advance, levels[0] * x, jnp.stack([levels[:-1], levels[1:]], 1))[0]


LEVELS = jnp.array([3.0, 1.5, 0.7, 0.3, 0.1])


@functools.partial(jax.jit, static_argnums=(0, 1))
def with_policy(denoiser, policy, x, condition):
    sampler = guided(denoiser, policy)
    decision = sampler.decide(LEVELS[0] * x, jnp.full(len(x), LEVELS[0]), condition)
    return drawn(functools.partial(sampler.denoise, decision=decision), x, LEVELS), decision


@functools.partial(jax.jit, static_argnums=0)
def without_policy(denoiser, x, condition):
    """By ordinary guidance, as the private diffusion computes it."""
    denoise = edm.guided(lambda x, s: denoiser(x, s, condition), lambda x, s: denoiser(x, s, 0 * condition), SCALE)
    return drawn(denoise, x, LEVELS)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1], [0, 3, 1, 3, 2], [3, 3, 3, 3, 3]], ids=str)
def test_samples_without_a_trigger_are_those_of_ordinary_guidance_bit_for_bit(dtype, labels):
    denoiser, shape = network_of(dtype)
    x, condition = noise_of(shape, 5), jnp.eye(CLASSES)[jnp.array(labels)]
    images, decision = with_policy(denoiser, policy_of(threshold=0.5), x, condition)
    plain, free = without_policy(denoiser, x, condition), np.array(labels) != 3
    np.testing.assert_array_equal(decision.triggered, ~free)
    np.testing.assert_array_equal(images[free], plain[free])
    assert not np.any(np.all(images == plain, axis=(1, 2, 3))[~free])
    np.testing.assert_array_equal(decision.alternative[free], condition[free])


def test_a_triggered_sample_does_not_depend_on_the_rest_of_its_batch():
    denoiser, shape = network_of()
    x = noise_of(shape, 4)
    policy = policy_of(threshold=0.5)
    first, _ = with_policy(denoiser, policy, x, jnp.eye(CLASSES)[jnp.array([3, 0, 1, 2])])
    second, _ = with_policy(denoiser, policy, x.at[1:].add(1.0), jnp.eye(CLASSES)[jnp.array([3, 3, 3, 3])])
    np.testing.assert_array_equal(first[0], second[0])


def test_an_infinite_threshold_is_ordinary_guidance():
    denoiser, shape = network_of()
    x, condition = noise_of(shape, 4), jnp.eye(CLASSES)
    images, decision = with_policy(denoiser, policy_of(threshold=math.inf), x, condition)
    assert not decision.triggered.any()
    np.testing.assert_array_equal(images, without_policy(denoiser, x, condition))


def published(c, other, none, m, s, t, end):
    """The formula as the published code writes it, for one sample, in float64."""
    if m <= t:
        return none + s * (other - none)
    shift = (s * t - end) / (s - 1)
    away = min((m - shift) / (end - shift) * s, s)
    return c + away * (other - c) + (s - away) * (other - none)


@pytest.mark.parametrize("s", [1.5, 3.0, 7.5])
def test_the_formula_is_the_published_one(s):
    rng = np.random.default_rng(0)
    c, other, none = rng.standard_normal((3, 40, 6))
    m, policy = rng.uniform(0, 4, 40), policy_of(scale=s, anchor_from=1.2, anchor_to=2.5)
    want = [published(*rows, s, 1.2, 2.5) for rows in zip(c, other, none, m, strict=True)]
    found = reanchored(*map(jnp.asarray, (c, other, none)), jnp.asarray(m)[:, None], policy)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_guidance_is_ordinary_to_the_alternative_at_t_and_away_from_the_condition_from_m_on():
    c, other, none = (jax.random.normal(jax.random.key(i), (1, 5)) for i in range(3))
    policy = policy_of(anchor_from=1.0, anchor_to=2.0)
    for m in (0.0, 1.0):
        found = reanchored(c, other, none, jnp.array([[m]]), policy)
        np.testing.assert_allclose(found, none + SCALE * (other - none), rtol=1e-5, atol=1e-6)
    for m in (2.0, 100.0):
        found = reanchored(c, other, none, jnp.array([[m]]), policy)
        np.testing.assert_allclose(found, c + SCALE * (other - c), rtol=1e-5, atol=1e-6)


def test_every_step_measures_the_alternative_anew():
    """``denoise`` against the formula in numpy, with a magnitude that depends on the noise level."""
    values = jnp.array([1.0, 2.0, 3.0, 9.0])

    def denoiser(x, sigma, condition):
        return (condition @ values)[:, None] * jnp.ones_like(x)

    # Half of class 3 and half of class 0 are 5: above the threshold of the first step, where sigma is 2, is 9 / 2 only.
    policy = policy_of(threshold=4.0, anchor_from=1.0, anchor_to=5.0, alternatives=mixtures(jnp.eye(4), (0.5,)))
    sampler, condition = guided(denoiser, policy), jnp.eye(CLASSES)[3:]
    decision = sampler.decide(jnp.zeros((1, 2)), jnp.array([2.0]), condition)
    np.testing.assert_allclose(decision.alternative, [[0.5, 0, 0, 0.5]])
    np.testing.assert_allclose(decision.magnitude, [4.5])
    np.testing.assert_allclose(decision.alternative_magnitude, [2.5])
    for sigma in (10.0, 2.0, 1.0, 0.1):
        want = published(9.0, 5.0, 0.0, 5.0 / sigma, SCALE, 1.0, 5.0)
        found = sampler.denoise(jnp.zeros((1, 2)), jnp.array([sigma]), decision)
        np.testing.assert_allclose(found, np.full((1, 2), want), rtol=1e-5)


def test_vmap_over_samples_is_a_batch():
    denoiser, shape = network_of()
    sampler = guided(denoiser, policy_of(threshold=0.5))
    x, sigma, condition = noise_of(shape, 4), jnp.full(4, 2.0), jnp.eye(CLASSES)

    def one(x, sigma, condition):
        decision = sampler.decide(x[None], sigma[None], condition[None])
        return sampler.denoise(x[None], sigma[None], decision)[0], decision.triggered[0]

    images, triggered = jax.jit(jax.vmap(one))(x, sigma, condition)
    decision = sampler.decide(x, sigma, condition)
    np.testing.assert_array_equal(triggered, decision.triggered)
    assert decision.triggered.tolist() == [False, False, False, True]
    np.testing.assert_allclose(images, sampler.denoise(x, sigma, decision), rtol=1e-4, atol=1e-4)


def test_a_null_condition_of_ones_own():
    def denoiser(x, sigma, condition):
        return jnp.sum(condition, axis=1)[:, None] * jnp.ones_like(x)

    null = jnp.array([1.0, 1.0])
    x, sigma, condition = jnp.zeros((1, 3)), jnp.ones(1), jnp.array([[2.0, 3.0]])
    policy = policy_of(scale=2.0, alternatives=mixtures(jnp.eye(2)), threshold=10.0)
    sampler = guided(denoiser, policy, null)
    decision = sampler.decide(x, sigma, condition)
    assert decision.magnitude.tolist() == [3.0]
    np.testing.assert_array_equal(sampler.denoise(x, sigma, decision), np.full((1, 3), 8.0))


def diffusion(**options):
    """The residual diffusion of a method, what it starts from, and its images of four classes."""
    spec = ImageSpec(8, 1, CLASSES)
    model = ResidualModel(spec, Hyperparameters(width=8, blocks=1, directions=5, label_dropout=0.1, **options))
    params = model.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.05 * jax.random.normal(jax.random.key(1), p.shape), params)
    start = Start(jnp.full((4, *spec.shape), 0.4), jnp.ones((4, 5)))
    keys = jax.random.split(jax.random.key(2), 4)
    return np.asarray(jax.jit(model.sample)(params, start, jnp.arange(4), keys))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_option_of_the_private_diffusion(dtype):
    """Off by default; without a trigger it changes no bit, and with one all images that are triggered."""
    plain = diffusion(guidance=SCALE, compute_dtype=dtype)
    np.testing.assert_array_equal(plain, diffusion(guidance=SCALE, compute_dtype=dtype, guidance_threshold=1e9))
    options = {"guidance_threshold": 1e-9, "anchor_from": 0.001, "anchor_to": 0.01}
    turned = diffusion(guidance=SCALE, compute_dtype=dtype, **options)
    assert not np.any(np.all(plain == turned, axis=(1, 2, 3)))
    assert np.isfinite(turned).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_threshold": 0.5}, "method.guidance_threshold is 0.5; .*method.label_dropout above 0"),
        ({"guidance_threshold": -1.0, "label_dropout": 0.1}, "method.guidance_threshold is -1.0; .*above 0"),
        ({"anchor_from": 1.0}, "method.anchor_to is 1.0; .*above method.anchor_from, which is 1"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(options, message, tmp_path):
    config = default_config("private_diffusion")
    config.method.update(options)
    with pytest.raises(UserError, match=message):
        fit(config, tmp_path / "run", progress=False)


def test_magnitudes_of_a_network_are_those_of_its_denoised_images():
    """F of scaled samples with ``noise_factor``, and D of the samples themselves with 1 / sigma, decide alike."""
    denoiser, shape = network_of()
    std, largest = 0.6, 5.0
    factor = functools.partial(edm.noise_factor, std=std)
    by_network = guided(lambda x, level, c: denoiser(x, jnp.exp(level), c), policy_of(noise_factor=factor))
    first, condition = noise_of(shape, 4), jnp.eye(CLASSES)
    _, decision = edm.decided(by_network, first, condition, std=std, largest=largest)

    def denoised(x, sigma, condition):
        return edm.denoised(lambda scaled, level: denoiser(scaled, jnp.exp(level), condition), x, sigma, std)

    by_images = guided(denoised, policy_of()).decide(largest * first, jnp.full(4, largest), condition)
    np.testing.assert_allclose(decision.magnitude, by_images.magnitude, rtol=1e-4)
