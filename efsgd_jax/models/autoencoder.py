"""A convolutional autoencoder of photographs: images of S x S pixels to codes of S/8 x S/8 positions, and back."""

import flax.linen as nn
import jax

from efsgd_jax.models.layers import Conv, PixelNorm
from efsgd_jax.models.refiner import from_depth, to_depth

# An image's side is divided by this number.
REDUCTION = 8


class ResidualBlock(nn.Module):
    """``x + Conv(act(norm(Conv(act(norm(x))))))``, near the identity at first; ``act`` is SiLU."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = Conv(x.shape[-1])(nn.silu(PixelNorm()(x)))
        return x + Conv(x.shape[-1], kernel_init=nn.initializers.normal(0.02))(nn.silu(PixelNorm()(h)))


class Encoder(nn.Module):
    """Maps images ``[B, S, S, C]`` in [-1, 1] to codes ``[B, S/8, S/8, channels]``.

    Attributes:
      width: channels of the feature maps at a quarter of the side.
      channels: channels of a code.
    """

    width: int
    channels: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        h = nn.Dense(self.width)(to_depth(to_depth(images)))
        for _ in range(2):
            h = ResidualBlock()(h)
        h = ResidualBlock()(nn.Dense(2 * self.width)(to_depth(h)))
        return nn.Dense(self.channels)(PixelNorm()(h))


class Decoder(nn.Module):
    """Maps codes to images, which are not clipped to [-1, 1].

    Attributes:
      width: channels of the feature maps at a quarter of the side.
      image_channels: channels of an image.
    """

    width: int
    image_channels: int

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        h = nn.Dense(2 * self.width)(codes)
        for blocks, width in ((2, self.width), (2, max(self.width // 2, 1)), (1, 0)):
            for _ in range(blocks):
                h = ResidualBlock()(h)
            if width:
                h = from_depth(nn.Dense(4 * width)(nn.silu(PixelNorm()(h))))
        return from_depth(Conv(4 * self.image_channels)(nn.silu(PixelNorm()(h))))


class Autoencoder(nn.Module):
    """Encoder and decoder.

    Attributes:
      width: channels of the feature maps at a quarter of the side; twice as many at an eighth, half as many at a half.
      channels: channels of a code.
      image_channels: channels of an image.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> model, images = Autoencoder(width=8, channels=4, image_channels=3), jnp.zeros((2, 16, 16, 3))
      >>> variables = model.init(jax.random.key(0), images)
      >>> model.apply(variables, images, method="encode").shape, model.apply(variables, images).shape
      ((2, 2, 2, 4), (2, 16, 16, 3))
    """

    width: int
    channels: int
    image_channels: int

    def setup(self) -> None:
        self.encoder = Encoder(self.width, self.channels)
        self.decoder = Decoder(self.width, self.image_channels)

    def encode(self, images: jax.Array) -> jax.Array:
        """Codes ``[B, S/8, S/8, channels]`` of images in [-1, 1]."""
        return self.encoder(images)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Images of codes."""
        return self.decoder(codes)

    def __call__(self, images: jax.Array) -> jax.Array:
        return self.decode(self.encode(images))
