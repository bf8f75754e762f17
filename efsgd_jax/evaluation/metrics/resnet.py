"""Residual networks with batch normalisation for small images: for evaluation only, never for private training."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from efsgd_jax.models.convolution import convolve

# He initialisation by the number of outputs (PyTorch's ``kaiming_normal_`` with ``mode="fan_out"``).
KERNEL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Number of groups of blocks; from one to the next the side of the feature maps is halved.
STAGES = 3


class Convolution(nn.Module):
    """A ``side`` x ``side`` convolution without bias, in ``groups``; with stride 1 the padding keeps the image size."""

    features: int
    side: int = 3
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", KERNEL, (self.side, self.side, x.shape[-1] // self.groups, self.features))
        if self.side == 1:  # ``convolve`` does not allow a stride larger than the kernel
            return convolve(x[:, :: self.stride, :: self.stride], kernel, 1, ((0, 0), (0, 0)))
        margin = (self.side // 2, self.side // 2)
        parts = [
            convolve(part, k, self.stride, (margin, margin))
            for part, k in zip(jnp.split(x, self.groups, -1), jnp.split(kernel, self.groups, -1), strict=True)
        ]
        return jnp.concatenate(parts, -1)


class Normalised(nn.Module):
    """Batch normalisation (by running statistics unless training), followed by ReLU unless ``linear``."""

    linear: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
        return x if self.linear else nn.relu(x)


def _logits(x: jax.Array, num_classes: int) -> jax.Array:
    """A dense layer on the mean over all pixels, with the kernel initialised as PyTorch does by default."""
    kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nn.Dense(num_classes, kernel_init=kernel)(jnp.mean(x, axis=(1, 2)))


class ResNet(nn.Module):
    """A ResNet of ``6n + 2`` layers: three stages of n blocks of two 3x3 convolutions, with 16, 32 and 64 channels.

    A block that changes the shape has a 1x1 convolution in its shortcut.

    References:
      He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, section 4.2.
    """

    num_classes: int
    depth: int = 110

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Normalised()(Convolution(16)(x), train)
        for stage in range(STAGES):
            for block in range((self.depth - 2) // 6):
                features, stride = 16 * 2**stage, 2 if stage and not block else 1
                y = Normalised()(Convolution(features, stride=stride)(x), train)
                y = Normalised(linear=True)(Convolution(features)(y), train)
                if x.shape[-1] != features:
                    x = Normalised(linear=True)(Convolution(features, side=1, stride=stride)(x), train)
                x = nn.relu(x + y)
        return _logits(x, self.num_classes)


class WideResNet(nn.Module):
    """WRN-depth-width: ``6n + 4`` layers. Batch normalisation precedes each convolution; a block has dropout between
    its two convolutions.

    References:
      Zagoruyko and Komodakis, Wide Residual Networks, arXiv 1605.07146.
    """

    num_classes: int
    depth: int = 40
    width: int = 4
    dropout: float = 0.3

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Convolution(16)(x)
        for stage in range(STAGES):
            for block in range((self.depth - 4) // 6):
                features, stride = 16 * self.width * 2**stage, 2 if stage and not block else 1
                y = Normalised()(x, train)
                if x.shape[-1] != features:
                    x = Convolution(features, side=1, stride=stride)(y)
                y = Normalised()(Convolution(features, stride=stride)(y), train)
                y = nn.Dropout(self.dropout, deterministic=not train)(y)
                x = x + Convolution(features)(y)
        return _logits(Normalised()(x, train), self.num_classes)


class ResNeXt(nn.Module):
    """ResNeXt-depth, cardinality x width: ``9n + 2`` layers; a block's 3x3 convolution has ``cardinality`` groups.

    Each group has ``width`` channels in the first stage, and twice as many in each further stage.

    References:
      Xie et al., Aggregated Residual Transformations for Deep Neural Networks, arXiv 1611.05431, section 5.3.
    """

    num_classes: int
    depth: int = 29
    cardinality: int = 8
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Normalised()(Convolution(64)(x), train)
        for stage in range(STAGES):
            for block in range((self.depth - 2) // 9):
                stride = 2 if stage and not block else 1
                inner, features = self.cardinality * self.width * 2**stage, 256 * 2**stage
                y = Normalised()(Convolution(inner, side=1)(x), train)
                y = Normalised()(Convolution(inner, stride=stride, groups=self.cardinality)(y), train)
                y = Normalised(linear=True)(Convolution(features, side=1)(y), train)
                if x.shape[-1] != features:
                    x = Normalised(linear=True)(Convolution(features, side=1, stride=stride)(x), train)
                x = nn.relu(x + y)
        return _logits(x, self.num_classes)
