"""The discriminator, conditioned on the label by projection, and the auxiliary classifier on the same features."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.models.layers import Conv, PixelNorm, leaky_relu
from efsgd_jax.models.sizes import base_and_stages, stage_widths


class DiscriminatorOutput(NamedTuple):
    """The outputs of the discriminator: ``realness`` ``[B]`` (a logit) and ``class_logits`` ``[B, num_classes]``."""

    realness: jax.Array
    class_logits: jax.Array


class ConvTrunk(nn.Module):
    """Strided convolutions to the smallest feature map of ``sizes.py``, flattened: ``[B, S, S, C] -> [B, features]``.

    Attributes:
      spec: shape of the images and number of classes.
      width: channels of the first convolution; each further one has twice as many.
      max_width: largest number of channels.
    """

    spec: ImageSpec
    width: int
    max_width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, stages = base_and_stages(self.spec.image_size)
        widths = stage_widths(self.width, stages, self.max_width)
        x = leaky_relu(Conv(widths[0])(x))
        for features in widths[1:]:
            x = leaky_relu(PixelNorm()(Conv(features, stride=2)(x)))
        return x.reshape(x.shape[0], -1)


class Discriminator(nn.Module):
    """``D(x, y) = psi(phi(x)) + <embed(y), phi(x)>`` (projection, arXiv 1802.05637) and an auxiliary classifier.

    x is an image and y its label; phi is the trunk with a dense layer, and psi a linear function. There is no
    normalisation across examples, so that the gradient of one example's loss depends on that example only.

    Attributes:
      spec: shape of the images and number of classes.
      width: channels of the first convolution; each further one has twice as many.
      max_width: largest number of channels.
      features: length of phi(x).
    """

    spec: ImageSpec
    width: int = 16
    max_width: int = 128
    features: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array) -> DiscriminatorOutput:
        h = ConvTrunk(self.spec, self.width, self.max_width)(images)
        phi = leaky_relu(nn.Dense(self.features)(h))
        embedding = nn.Embed(self.spec.num_classes, self.features, embedding_init=nn.initializers.normal(0.05))(labels)
        realness = nn.Dense(1)(phi)[:, 0] + jnp.sum(embedding * phi, axis=-1)
        return DiscriminatorOutput(realness, nn.Dense(self.spec.num_classes)(phi))
