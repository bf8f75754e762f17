"""The refiner: a residual network that corrects a blurred image, given the code from which the image was made."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.layers import Conv, NoiseInjection, PixelNorm


class RefinerBlock(nn.Module):
    """Residual block with feature-wise modulation: ``x + Conv(act(norm(noise(Conv(act(a * norm(x) + b))))))``.

    The factor a and the shift b are affine functions of the condition, one pair for each channel (FiLM, arXiv
    1709.07871). ``act`` is SiLU, ``norm`` is ``PixelNorm``, and ``noise`` is left out without ``noise_injection``.
    """

    noise_injection: bool

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        features = x.shape[-1]
        factor_and_shift = nn.Dense(2 * features, kernel_init=nn.initializers.normal(0.05))(condition)[:, None, None]
        factor, shift = jnp.split(factor_and_shift, 2, axis=-1)
        h = Conv(features)(nn.silu(PixelNorm()(x) * (1 + factor) + shift))
        if self.noise_injection:
            h = NoiseInjection()(h)
        return x + Conv(features)(nn.silu(PixelNorm()(h)))


class Refiner(nn.Module):
    """Adds a learned correction to an image; with its initial parameters it returns the image unchanged.

    Attributes:
      spec: shape of the images and number of classes; the image size must be even.
      width: channels of all feature maps, which have half the side of the image.
      blocks: number of residual blocks.
      noise_injection: whether each block adds noise; needs the RNG stream ``"noise"``.

    Called with ``images`` float ``[B, S, S, C]`` in [0, 1], ``codes`` float ``[B, d]`` of about unit variance and
    ``labels`` int ``[B]``. Returns ``[B, S, S, C]``, which is not clipped to [0, 1].
    """

    spec: ImageSpec
    width: int = 32
    blocks: int = 3
    noise_injection: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, codes: jax.Array, labels: jax.Array) -> jax.Array:
        # Code and label are scaled to an l2 norm of 4 (the code on average), so that neither outweighs the other.
        label = jax.nn.one_hot(labels, self.spec.num_classes, dtype=codes.dtype)
        condition = 4 * jnp.concatenate([codes / codes.shape[-1] ** 0.5, label], axis=-1)
        h = Conv(self.width)(to_depth(2 * images - 1))
        for _ in range(self.blocks):
            h = RefinerBlock(self.noise_injection)(h, condition)
        correction = Conv(4 * self.spec.channels, kernel_init=nn.initializers.zeros)(nn.silu(PixelNorm()(h)))
        return images + from_depth(correction)


def to_depth(x: jax.Array) -> jax.Array:
    """Each 2x2 square of pixels as one pixel with four times the channels: ``[B, S, S, C] -> [B, S/2, S/2, 4C]``."""
    b, s, _, c = x.shape
    return x.reshape(b, s // 2, 2, s // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, s // 2, s // 2, 4 * c)


def from_depth(x: jax.Array) -> jax.Array:
    """The inverse of ``to_depth``."""
    b, s, _, c = x.shape
    return x.reshape(b, s, s, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * s, 2 * s, c // 4)
