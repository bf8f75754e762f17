"""Random convolutional networks, whose weights are public: what the features of private images are matched in."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.models.layers import Conv

# Key of the networks' weights: public and the same in all runs.
PUBLIC_KEY = 25_080_174
# Smallest side of the last feature map.
SMALLEST = 3
# Weight of the pixels, relative to one network.
PIXEL_WEIGHT = 2.0
# Factor of the features without normalisation, so that those of two images differ by about as much as the others do.
PLAIN_FACTOR = 0.2


class RandomNetwork(nn.Module):
    """``[B, S, S, C] -> [B, F]``: 3x3 convolutions, each halved in side.

    The network of dataset distillation (arXiv 2110.04181) with one stage less where images are small. The features are
    divided by the square root of their number, so that their norm does not depend on the width.

    Attributes:
      width: number of channels of each convolution.
      normalised: whether each channel is normalised over the image. Brightness and contrast are then invisible.
    """

    width: int
    normalised: bool

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        while x.shape[1] // 2 >= SMALLEST or x is images:
            x = Conv(self.width)(x)
            if self.normalised:
                x = x - jnp.mean(x, axis=(1, 2), keepdims=True)
                x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=(1, 2), keepdims=True) + 1e-3)
            else:
                x = x * 2**0.5  # the rectifier below halves the second moment
            x = nn.relu(x)
            x = nn.avg_pool(x, (2, 2), (2, 2)) if x.shape[1] > 1 else x
        flat = x.reshape(len(x), -1) / math.sqrt(math.prod(x.shape[1:]))
        return flat if self.normalised else PLAIN_FACTOR * flat


def features(images: jax.Array, networks: int, width: int) -> jax.Array:
    """Features of images in each of J networks, and their own pixels at half the size.

    Every second network has no normalisation. Those with it tell shapes apart better, but do not see brightness and
    contrast: with them alone, all images of a class get the mean brightness of the class.

    Args:
      images: float ``[B, S, S, C]`` in [0, 1].
      networks: J.
      width: channels of the convolutions.

    Returns:
      float32 ``[B, J F + P]``, with a norm of about ``longest(J)`` or less. All weights are functions of ``PUBLIC_KEY``
      and of the images' shape alone.
    """
    found = [network_features(images, i, i % 2 == 0, networks, width) for i in range(networks)]
    return jnp.concatenate([*found, half_size(images)], axis=1)


def network_features(
    images: jax.Array, index: int | jax.Array, normalised: bool, networks: int, width: int
) -> jax.Array:
    """``[B, F]``: the part of ``features`` that is of network ``index``, which is normalised if that is even."""
    scaled = 4.0 * (images - 0.5)  # of variance about 1
    key = jax.random.split(jax.random.key(PUBLIC_KEY), networks)[index]
    network = RandomNetwork(width, normalised)
    return jnp.asarray(network.apply(network.init(key, scaled[:1]), scaled))


def half_size(images: jax.Array) -> jax.Array:
    """``[B, P]``: the part of ``features`` that is the images' pixels at half the size."""
    pixels = nn.avg_pool(images, (2, 2), (2, 2)).reshape(len(images), -1)
    return PIXEL_WEIGHT * pixels / pixels.shape[1] ** 0.5


def longest(networks: int) -> float:
    """About the largest norm of the features of an image in J networks."""
    return math.hypot(networks**0.5, PIXEL_WEIGHT)


def num_features(shape: tuple[int, int, int], networks: int, width: int) -> int:
    """The number of features of an image of shape ``[S, S, C]``."""
    one = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda x: features(x, networks, width), one).shape[1]
