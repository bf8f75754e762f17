"""The generator, which is also the decoder of the reconstruction loss."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.layers import Conv, NoiseInjection, PixelNorm, UpsamplingConv, leaky_relu, upsample
from efsgd_jax.models.sizes import base_and_stages, stage_widths


class UpsamplingBlock(nn.Module):
    """Residual block that doubles the side: ``up(W x) + Conv(act(norm(noise(Conv(up(act(norm(x))))))))``.

    W is a 1x1 convolution, ``up`` nearest-neighbour upsampling, ``norm`` is ``PixelNorm`` and ``act`` leaky ReLU.

    Attributes:
      features: channels of the result.
      noise_injection: whether the block has the layer ``noise``.
    """

    features: int
    noise_injection: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # A 1x1 convolution commutes with nearest-neighbour upsampling. It comes first, on a quarter of the pixels.
        skip = upsample(Conv(self.features, kernel_size=1, name="Conv_0")(x))
        h = leaky_relu(PixelNorm()(x))
        h = UpsamplingConv(self.features, name="Conv_1")(h)
        if self.noise_injection:
            h = NoiseInjection()(h)
        h = Conv(self.features, name="Conv_2")(leaky_relu(PixelNorm()(h)))
        return skip + h


class Generator(nn.Module):
    """Class-conditional residual generator with noise injection at every upsampling stage (arXiv 2601.15061).

    Attributes:
      spec: shape of the images and number of classes.
      width: channels of the finest stage; each coarser stage has twice as many.
      max_width: largest number of channels.
      noise_injection: whether the blocks have noise injection; without it they lack its parameters too.

    Called with ``z`` float ``[B, latent]`` and ``labels`` int ``[B]``; needs the RNG stream ``"noise"`` unless
    ``noise_injection`` is off. Returns float32 ``[B, S, S, C]`` in (-1, 1).
    """

    spec: ImageSpec
    width: int = 16
    max_width: int = 128
    noise_injection: bool = True

    @nn.compact
    def __call__(self, z: jax.Array, labels: jax.Array) -> jax.Array:
        base, stages = base_and_stages(self.spec.image_size)
        widths = stage_widths(self.width, stages, self.max_width)
        # The one-hot label is scaled to the average l2 norm of a normal z. With a smaller one, the encoder would encode
        # the class in z and the generator would read it from there, but a z from the prior does not contain the class.
        label = z.shape[-1] ** 0.5 * jax.nn.one_hot(labels, self.spec.num_classes, dtype=z.dtype)
        z = jnp.concatenate([z, label], axis=-1)
        h = nn.Dense(base * base * widths[-1], kernel_init=nn.initializers.normal(0.25))(z)
        h = h.reshape(-1, base, base, widths[-1])
        for features in reversed(widths[:-1]):
            h = UpsamplingBlock(features, self.noise_injection)(h)
        return jnp.tanh(Conv(self.spec.channels)(leaky_relu(PixelNorm()(h))))
