"""Layers that several networks share, built on Flax's: convolution, upsampling, noise injection, normalisation."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.models.convolution import convolution, ours
from efsgd_jax.models.cpu_convolution import convolve_upsampled


def leaky_relu(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, 0.2)


class Conv(nn.Module):
    """``flax.linen.Conv`` with a square kernel and symmetric zero padding; its parameters have the same names.

    Attributes:
      features: channels of the result.
      kernel_size: side of the window, odd.
      stride: step between windows.
      kernel_init: initialiser of the kernel.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    kernel_init: Callable = nn.initializers.he_normal()

    def setup(self) -> None:
        self.conv = nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            self.stride,
            padding=self.kernel_size // 2,
            kernel_init=self.kernel_init,
            conv_general_dilated_cls=convolution,
        )
        nn.share_scope(self, self.conv)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x)


class UpsamplingConv(nn.Module):
    """``Conv(features)(upsample(x))``, with the parameters of ``Conv``; see ``convolve_upsampled``."""

    features: int
    kernel_init: Callable = nn.initializers.he_normal()

    def setup(self) -> None:
        self.conv = nn.Conv(
            self.features,
            (3, 3),
            padding=1,
            kernel_init=self.kernel_init,
            conv_general_dilated_cls=lambda: _convolve_upsampled,
        )
        nn.share_scope(self, self.conv)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x)


def _convolve_upsampled(x: jax.Array, kernel: jax.Array, *arguments: Any, **options: Any) -> jax.Array:
    if ours():
        return convolve_upsampled(x, kernel)
    return jax.lax.conv_general_dilated(upsample(x), kernel, *arguments, **options)


def upsample(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling by 2: ``[B, H, W, C] -> [B, 2H, 2W, C]``."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class NoiseInjection(nn.Module):
    """Adds one Gaussian map per image, scaled by a learned factor per channel.

    ``y[b, h, w, c] = x[b, h, w, c] + scale[c] * n[b, h, w]`` with ``n ~ N(0, 1)`` from the RNG stream
    ``"noise"``. This is the generator's noise injection of arXiv 2601.15061 (after StyleGAN,
    arXiv 1812.04948); it makes images more varied and is not a privacy mechanism. Flax has no such layer.
    """

    initial_scale: float = 0.05

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.constant(self.initial_scale), (x.shape[-1],))
        noise = jax.random.normal(self.make_rng("noise"), (*x.shape[:-1], 1), x.dtype)
        return x + scale * noise


# Divides each pixel's feature vector by its root mean square: no parameters, no statistics across examples.
PixelNorm = functools.partial(nn.RMSNorm, epsilon=1e-6, use_scale=False)
