"""Diffusion as in EDM (Karras et al., 2022, arXiv 2206.00364): preconditioning, loss and sampler, as pure functions.

A sample x of standard deviation s has noise of standard deviation sigma added to it, ``x_sigma = x + sigma n``. The
denoiser D is a network F between inputs and outputs of about unit variance::

    D(x_sigma, sigma) = s^2 / (sigma^2 + s^2) x_sigma + sigma s / sqrt(sigma^2 + s^2) F(x_sigma / sqrt(sigma^2 + s^2))

so that with F = 0 it is the best linear denoiser of white x.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from efsgd_jax.models.guided import Decision, Guided, classifier_free

# The exponent of the sampler's noise levels: the larger, the more steps are at low noise.
RHO = 7.0
# Largest churn, which doubles the variance of the noise.
MAX_CHURN = math.sqrt(2) - 1

# network(scaled, levels) -> F, for arrays [B, ...] and the logarithms [B] of the noise levels.
Network = Callable[[jax.Array, jax.Array], jax.Array]


def denoised(network: Network, noisy: jax.Array, sigma: jax.Array, std: float) -> jax.Array:
    """``D``: estimates of the samples, ``[B, ...]``.

    Args:
      network: the network F.
      noisy: noisy samples, ``[B, ...]``.
      sigma: their noise levels, ``[B]``.
      std: standard deviation s of the samples without noise.

    Examples:
      >>> denoised(lambda x, level: jnp.zeros_like(x), jnp.array([[2.0]]), jnp.array([1.0]), std=1.0).round(3)
      Array([[1.]], dtype=float32)
    """
    s = sigma.reshape(-1, *[1] * (noisy.ndim - 1))
    total = jnp.sqrt(jnp.square(s) + std**2)
    return jnp.square(std / total) * noisy + s * std / total * network(noisy / total, jnp.log(sigma))


def denoising_loss(
    network: Network,
    sample: jax.Array,
    key: jax.Array,
    *,
    std: float,
    largest: float,
    draws: int,
    level_shift: float = 0.0,
    level_std: float = 1.0,
) -> jax.Array:
    """The loss of one sample: the mean over several draws of noise of ``|D - x|^2``, weighted to unit loss with F = 0.

    The logarithm of the noise level is normally distributed about ``log(std) + level_shift`` with standard deviation
    ``level_std``; levels above ``largest`` become ``largest``.

    Args:
      network: the network F.
      sample: the sample x, without a batch axis.
      key: PRNG key.
      std: standard deviation s of the samples.
      largest: largest noise level.
      draws: number of noisy versions of the sample.
      level_shift: shift of the logarithm of the level.
      level_std: standard deviation of the logarithm of the level.
    """
    level_key, noise_key = jax.random.split(key)
    levels = level_shift + level_std * jax.random.normal(level_key, (draws,))
    sigma = jnp.minimum(std * jnp.exp(levels), largest)
    s = sigma.reshape(-1, *[1] * sample.ndim)
    noisy = sample + s * jax.random.normal(noise_key, (draws, *sample.shape))
    weight = (jnp.square(s) + std**2) / jnp.square(s * std)
    return jnp.mean(weight * jnp.square(denoised(network, noisy, sigma, std) - sample))


def guided(with_class: Network, without_class: Network, factor: float) -> Network:
    """Classifier-free guidance (Ho, Salimans, 2022, arXiv 2207.12598): F moves away from what it is without the class.

    Args:
      with_class: F with the class.
      without_class: F for an unknown class.
      factor: 1 for ``with_class``, 0 for ``without_class``; above 1 the class counts more.
    """

    def network(scaled: jax.Array, levels: jax.Array) -> jax.Array:
        without = without_class(scaled, levels)
        return classifier_free(with_class(scaled, levels), without, factor)

    return network


def noise_factor(levels: jax.Array, std: float) -> jax.Array:
    """What makes a difference of F one of predicted noise, for ``models.guided.Policy``; levels are logarithms."""
    return std / jnp.sqrt(jnp.square(jnp.exp(levels)) + std**2)


def decided(
    sampler: Guided, first: jax.Array, condition: jax.Array, *, std: float, largest: float
) -> tuple[Network, Decision]:
    """The network that ``sampled`` needs, and the decision of ``models.guided`` at the first noise level.

    Args:
      sampler: ``models.guided.guided`` of a function F of scaled samples, levels and conditions.
      first: the white noise from which sampling begins, ``noise(0)``.
      condition: the conditions, float ``[B, d]``.
      std: standard deviation s of the samples.
      largest: first noise level.
    """
    scaled, level = largest / math.hypot(largest, std) * first, jnp.full(len(first), math.log(largest))
    decision = sampler.decide(scaled, level, condition)
    return lambda scaled, levels: sampler.denoise(scaled, levels, decision), decision


def sampled(
    network: Network,
    noise: Callable[[jax.typing.ArrayLike], jax.Array],
    *,
    std: float,
    largest: float,
    smallest: float,
    steps: int,
    churn: float = 0.0,
) -> jax.Array:
    """Samples by Heun's method along the probability-flow ODE, from the noise level ``largest`` to 0.

    With ``churn``, each step first adds noise that raises the level by this part, as in EDM's stochastic sampler.

    Args:
      network: the network F.
      noise: ``noise(i)`` is white noise of unit variance, ``[B, ...]``; different for each i from 0 to ``steps - 1``.
      std: standard deviation s of the samples.
      largest: first noise level.
      smallest: last noise level above 0.
      steps: number of steps; each evaluates the network twice, the last one once.
      churn: between 0, for a deterministic sampler, and ``MAX_CHURN``.
    """
    low, high = smallest ** (1 / RHO), largest ** (1 / RHO)
    levels = (high + jnp.linspace(0, 1, steps) * (low - high)) ** RHO
    following = jnp.append(levels[1:], 0.0)

    def slope(x: jax.Array, level: jax.Array) -> jax.Array:
        return (x - denoised(network, x, jnp.full(len(x), level), std)) / level

    def step(x: jax.Array, at: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        i, level, after = at
        if churn:
            x = x + level * math.sqrt((1 + churn) ** 2 - 1) * noise(i)
            level = (1 + churn) * level
        first = slope(x, level)
        second = slope(x + (after - level) * first, after)
        return x + (after - level) * (first + second) / 2, None

    # From the smallest level to 0, Heun's step would divide by 0; Euler's step gives the denoised sample.
    x, _ = jax.lax.scan(step, largest * noise(0), (jnp.arange(1, steps), levels[:-1], following[:-1]))
    return denoised(network, x, jnp.full(len(x), levels[-1]), std)
