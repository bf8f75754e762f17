"""The InceptionV3 network of FID, for inference only: TensorFlow's network of 2015-12-05, as in pytorch-fid."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.errors import UserError

# The side of input images, the numbers of features and of classes of the published network, and of images in a batch.
SIDE = 299
NUM_FEATURES = 2048
NUM_CLASSES = 1008
CHUNK = 32

Layer = Callable[[jax.Array], jax.Array]


def conv(name: str, features: int, window: tuple[int, int], stride: int = 1, padding: str = "SAME") -> Layer:
    """A convolution followed by ReLU; batch normalisation is folded into the convolution's kernel and bias.

    The highest precision makes accelerators multiply in float32, so that FID does not depend on the device.
    """
    layer = nn.Conv(features, window, stride, padding, precision=jax.lax.Precision.HIGHEST, name=name)
    return lambda x: nn.relu(layer(x))


def average_pool(x: jax.Array) -> jax.Array:
    """3x3 average pooling over the pixels inside of the image only; PyTorch's default counts the padding too."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 max pooling with stride 1, which keeps the size."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def halving_max_pool(x: jax.Array) -> jax.Array:
    """3x3 max pooling with stride 2, without padding."""
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


def chain(x: jax.Array, *layers: Layer) -> jax.Array:
    return functools.reduce(lambda y, layer: layer(y), layers, x)


def join(branches: Sequence[jax.Array]) -> jax.Array:
    return jnp.concatenate(branches, axis=-1)


class InceptionA(nn.Module):
    """A block for 35x35 pixels, with four branches: 1x1, 5x5 and two 3x3 convolutions, and pooling."""

    pool_features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        double = (conv("branch3x3dbl_1", 64, (1, 1)), conv("branch3x3dbl_2", 96, (3, 3)))
        return join(
            [
                conv("branch1x1", 64, (1, 1))(x),
                chain(x, conv("branch5x5_1", 48, (1, 1)), conv("branch5x5_2", 64, (5, 5))),
                chain(x, *double, conv("branch3x3dbl_3", 96, (3, 3))),
                chain(x, average_pool, conv("branch_pool", self.pool_features, (1, 1))),
            ]
        )


class InceptionB(nn.Module):
    """A block that reduces 35x35 to 17x17 pixels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        double = (conv("branch3x3dbl_1", 64, (1, 1)), conv("branch3x3dbl_2", 96, (3, 3)))
        return join(
            [
                conv("branch3x3", 384, (3, 3), 2, "VALID")(x),
                chain(x, *double, conv("branch3x3dbl_3", 96, (3, 3), 2, "VALID")),
                halving_max_pool(x),
            ]
        )


class InceptionC(nn.Module):
    """A block for 17x17 pixels, whose 7x7 convolutions are factored into 1x7 and 7x1; one branch has two of them."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.features
        double = (
            conv("branch7x7dbl_1", c, (1, 1)),
            conv("branch7x7dbl_2", c, (7, 1)),
            conv("branch7x7dbl_3", c, (1, 7)),
            conv("branch7x7dbl_4", c, (7, 1)),
            conv("branch7x7dbl_5", 192, (1, 7)),
        )
        single = (
            conv("branch7x7_1", c, (1, 1)),
            conv("branch7x7_2", c, (1, 7)),
            conv("branch7x7_3", 192, (7, 1)),
        )
        return join(
            [
                conv("branch1x1", 192, (1, 1))(x),
                chain(x, *single),
                chain(x, *double),
                chain(x, average_pool, conv("branch_pool", 192, (1, 1))),
            ]
        )


class InceptionD(nn.Module):
    """A block that reduces 17x17 to 8x8 pixels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        seven = (
            conv("branch7x7x3_1", 192, (1, 1)),
            conv("branch7x7x3_2", 192, (1, 7)),
            conv("branch7x7x3_3", 192, (7, 1)),
            conv("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
        )
        return join(
            [
                chain(x, conv("branch3x3_1", 192, (1, 1)), conv("branch3x3_2", 320, (3, 3), 2, "VALID")),
                chain(x, *seven),
                halving_max_pool(x),
            ]
        )


class InceptionE(nn.Module):
    """A block for 8x8 pixels, with 1x3 and 3x1 convolutions in parallel; ``pool`` differs in the network's two."""

    pool: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = conv("branch3x3_1", 384, (1, 1))(x)
        z = chain(x, conv("branch3x3dbl_1", 448, (1, 1)), conv("branch3x3dbl_2", 384, (3, 3)))
        return join(
            [
                conv("branch1x1", 320, (1, 1))(x),
                conv("branch3x3_2a", 384, (1, 3))(y),
                conv("branch3x3_2b", 384, (3, 1))(y),
                conv("branch3x3dbl_3a", 384, (1, 3))(z),
                conv("branch3x3dbl_3b", 384, (3, 1))(z),
                chain(x, self.pool, conv("branch_pool", 192, (1, 1))),
            ]
        )


class Inception(nn.Module):
    """The network; its layers have the names of the published weights."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps images ``[B, 299, 299, 3]`` in [-1, 1] to features ``[B, 2048]`` and logits ``[B, 1008]``.

        The logits are without the bias of the last layer, as in the code of the inception score.
        """
        blocks = (
            conv("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
            conv("Conv2d_2a_3x3", 32, (3, 3), padding="VALID"),
            conv("Conv2d_2b_3x3", 64, (3, 3)),
            halving_max_pool,
            conv("Conv2d_3b_1x1", 80, (1, 1)),
            conv("Conv2d_4a_3x3", 192, (3, 3), padding="VALID"),
            halving_max_pool,
            InceptionA(32, name="Mixed_5b"),
            InceptionA(64, name="Mixed_5c"),
            InceptionA(64, name="Mixed_5d"),
            InceptionB(name="Mixed_6a"),
            InceptionC(128, name="Mixed_6b"),
            InceptionC(160, name="Mixed_6c"),
            InceptionC(160, name="Mixed_6d"),
            InceptionC(192, name="Mixed_6e"),
            InceptionD(name="Mixed_7a"),
            InceptionE(average_pool, name="Mixed_7b"),
            InceptionE(max_pool, name="Mixed_7c"),
        )
        features = jnp.mean(chain(x, *blocks), axis=(1, 2))
        last = nn.Dense(NUM_CLASSES, use_bias=False, precision=jax.lax.Precision.HIGHEST, name="fc")
        return features, last(features)


class InceptionV3(NamedTuple):
    """The network with its weights. Its methods take uint8 images ``[N, S, S, C]``, C 1 (a gray image) or 3.

    Images are scaled to 299x299 by bilinear interpolation without antialiasing, as in pytorch-fid.

    Attributes:
      params: the parameters of ``Inception``.
      published: whether these are the published weights. With others, the Fréchet distance of the features is not FID.
    """

    params: optax.Params
    published: bool

    def features(self, images: np.ndarray) -> np.ndarray:
        """The output of the last average pooling, the features for FID: float32 ``[N, 2048]``."""
        return self.features_and_probabilities(images)[0]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The class probabilities for the inception score of papers: float32 ``[N, 1008]``, rows sum to 1."""
        return self.features_and_probabilities(images)[1]

    def features_and_probabilities(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns ``features`` and ``probabilities``, computed in one forward pass.

        Raises:
          UserError: the images are not uint8 ``[N, S, S, C]`` with C 1 or 3, or there is no image.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
            raise UserError(
                f"InceptionV3 cannot see {images.dtype} images of shape {images.shape}; use uint8 [N, S, S, 1 or 3]"
            )
        size = min(CHUNK, len(images))
        chunks = []
        for start in range(0, len(images), size):
            chunk = images[start : start + size]
            padded = np.pad(chunk, ((0, size - len(chunk)), (0, 0), (0, 0), (0, 0)))  # one size is compiled once
            chunks.append([np.asarray(part)[: len(chunk)] for part in _apply(self.params, padded)])
        features, probabilities = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        return features, probabilities


@jax.jit
def _apply(params: optax.Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    n, channels = len(images), images.shape[-1]
    x = jax.image.resize(images.astype(jnp.float32) / 255.0, (n, SIDE, SIDE, channels), "bilinear", antialias=False)
    features, logits = Inception().apply(params, jnp.broadcast_to(2.0 * x - 1.0, (n, SIDE, SIDE, 3)))
    return jnp.asarray(features), jax.nn.softmax(jnp.asarray(logits))
