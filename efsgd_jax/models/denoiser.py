"""The denoiser: a residual network or U-Net that estimates what a blurred image lacks from a noisy version of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.layers import Conv, PixelNorm
from efsgd_jax.models.refiner import RefinerBlock, from_depth, to_depth

# Frequencies of the cosines and sines of the logarithm of the noise level.
FREQUENCIES = (0.5, 1.0, 2.0)


class Denoiser(nn.Module):
    """Estimates the residual of an image; with its initial parameters it returns zeros.

    Attributes:
      spec: shape of the images and number of classes; the image size must be a multiple of ``2^levels``.
      width: channels of the largest feature maps, which have half the side of the image.
      blocks: number of residual blocks on each level, for a U-Net on the way down and again on the way up.
      levels: number of sizes of feature maps. With 1 the network is a plain residual network; else it is a U-Net, in
        which each further level has half the side and twice the channels.

    Called with ``residuals`` float ``[B, S, S, C]``, noisy and scaled to about unit variance, ``levels`` float ``[B]``
    (the logarithms of their noise levels), ``images`` float ``[B, S, S, C]``, blurred and in [0, 1], ``codes`` float
    ``[B, d]`` of about unit variance and ``labels``: int ``[B]``, where the number of classes stands for an unknown
    class, or float ``[B, K]``, one-hot vectors and their mixtures. Returns ``[B, S, S, C]``.
    """

    spec: ImageSpec
    width: int = 32
    blocks: int = 3
    levels: int = 1

    @nn.compact
    def __call__(
        self, residuals: jax.Array, levels: jax.Array, images: jax.Array, codes: jax.Array, labels: jax.Array
    ) -> jax.Array:
        angles = levels[:, None] * jnp.array(FREQUENCIES)
        # Code, label and noise level are scaled to similar l2 norms, so that none outweighs the others.
        label = labels if labels.ndim == 2 else jax.nn.one_hot(labels, self.spec.num_classes, dtype=codes.dtype)
        code = codes / codes.shape[-1] ** 0.5
        condition = 4 * jnp.concatenate([code, label, jnp.cos(angles) / 2, jnp.sin(angles) / 2], axis=-1)
        h = self._blocks(Conv(self.width)(to_depth(jnp.concatenate([2 * images - 1, residuals], axis=-1))), condition)
        skipped = []
        for level in range(1, self.levels):
            skipped.append(h)
            h = self._blocks(Conv(self.width * 2**level)(to_depth(h)), condition)
        for skip in reversed(skipped):
            h = self._blocks(skip + from_depth(Conv(4 * skip.shape[-1])(h)), condition)
        return from_depth(Conv(4 * self.spec.channels, kernel_init=nn.initializers.zeros)(nn.silu(PixelNorm()(h))))

    def _blocks(self, h: jax.Array, condition: jax.Array) -> jax.Array:
        for _ in range(self.blocks):
            h = RefinerBlock(noise_injection=False)(h, condition)
        return h
