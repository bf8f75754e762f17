"""The denoiser: a small U-Net that corrects another denoiser's guess."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.layers import Conv, PixelNorm, UpsamplingConv, leaky_relu

# Of images of this side or more, each cell of 2x2 pixels is one position with four times the channels: the finest maps
# are the dearest, and a cell is about as large as a stroke is wide.
CELLS_FROM = 16
SMALLEST_MAP = 4
# About the root mean square of an image in [-1, 1].
IMAGE_STD = 0.7


class ConditionedBlock(nn.Module):
    """``x + Conv(act(a(c) norm(Conv(act(norm(x)))) + b(c)))``; begins close to the identity."""

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        features = x.shape[-1]
        h = Conv(features)(leaky_relu(PixelNorm()(x)))
        small = nn.initializers.normal(0.02)
        scale, shift = jnp.split(nn.Dense(2 * features, kernel_init=small)(condition)[:, None, None], 2, axis=-1)
        h = PixelNorm()(h) * (1 + scale) + shift
        return x + Conv(features, kernel_init=small)(leaky_relu(h))


class Denoiser(nn.Module):
    """What a guess at the image behind a noisy one lacks, in units of what it lacks on average.

    Attributes:
      spec: shape of the images and number of classes.
      width: channels of the finest maps; the coarser ones have twice as many.
      features: length of the vector that tells the blocks the class and the noise.

    Called with ``noisy`` and ``guess`` ``[B, S, S, C]`` about [-1, 1], the noise's ``std`` ``[B]`` above 0, and
    ``labels`` int ``[B]``. Returns ``[B, S, S, C]``; zeros before training.
    """

    spec: ImageSpec
    width: int = 24
    features: int = 32

    @nn.compact
    def __call__(self, noisy: jax.Array, guess: jax.Array, std: jax.Array, labels: jax.Array) -> jax.Array:
        spec = self.spec
        cell = 2 if spec.image_size >= CELLS_FROM else 1
        known = jnp.concatenate([jax.nn.one_hot(labels, spec.num_classes, dtype=noisy.dtype), waves(std)], axis=-1)
        condition = leaky_relu(nn.Dense(self.features)(known))

        scaled = noisy / jnp.sqrt(IMAGE_STD**2 + jnp.square(std))[:, None, None, None]
        h = Conv(self.width)(to_cells(jnp.concatenate([scaled, guess / IMAGE_STD], axis=-1), cell))
        h = ConditionedBlock()(h, condition)
        passed: list[jax.Array] = []
        while h.shape[1] % 2 == 0 and h.shape[1] // 2 >= SMALLEST_MAP and len(passed) < 2:
            passed.append(h)
            h = Conv(2 * self.width, stride=2)(h)
            h = ConditionedBlock()(h, condition)
        h = ConditionedBlock()(h, condition)
        for finer in reversed(passed):
            h = UpsamplingConv(finer.shape[-1])(h) + finer
            h = ConditionedBlock()(h, condition)
        h = leaky_relu(PixelNorm()(h))
        return from_cells(Conv(cell**2 * spec.channels, kernel_init=nn.initializers.zeros_init())(h), cell)


def waves(std: jax.Array) -> jax.Array:
    """Seven smooth functions of the noise level: ``[B] -> [B, 7]``."""
    level = jnp.log(std)[:, None]
    return jnp.concatenate([level / 2, *(f(k * level) for k in (0.5, 1.0, 2.0) for f in (jnp.sin, jnp.cos))], axis=-1)


def to_cells(x: jax.Array, side: int) -> jax.Array:
    """``[B, H, W, C] -> [B, H / side, W / side, side^2 C]``."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, height // side, width // side, side**2 * channels)


def from_cells(x: jax.Array, side: int) -> jax.Array:
    """The inverse of ``to_cells``."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height, width, side, side, channels // side**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, height * side, width * side, channels // side**2)
