"""Shared building blocks: a convolution that is fast under ``vmap``, resampling, noise injection."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


def leaky_relu(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, 0.2)


def extract_patches(x: jax.Array, kernel_size: int, stride: int) -> jax.Array:
    """Patches of a SAME-padded image batch as strided slices.

    Args:
      x: ``[B, H, W, C]``.
      kernel_size: side of the square window; padding is ``kernel_size // 2`` on each side.
      stride: step between windows.

    Returns:
      ``[B, ceil(H / stride), ceil(W / stride), kernel_size**2 * C]``; column, row, channel, the last fastest: the
      order of a ``[kh, kw, C, features]`` kernel with its first two axes exchanged, reshaped to two dimensions.
    """
    pad = kernel_size // 2
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # Rows, then columns: 2 k slices instead of k^2, which XLA compiles, and copies, faster.
    x = jnp.concatenate([x[:, i : i + height : stride] for i in range(kernel_size)], axis=-1)
    return jnp.concatenate([x[:, :, j : j + width : stride] for j in range(kernel_size)], axis=-1)


class Conv(nn.Module):
    """Square convolution with symmetric zero padding, NHWC; parameters as in ``flax.linen.Conv``.

    On CPU it is patches (strided slices) times one matrix, because under a per-example ``vmap`` and inside of loops
    XLA's convolution gradients are several times slower there; elsewhere it is the backend's own convolution, which
    is also what suits a plain batch on CPU (``use_patches=False``). Both give the same numbers up to rounding
    (``tests/test_models.py``).
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_patches: bool | None = None
    kernel_init: Callable = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        k, c = self.kernel_size, x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (k, k, c, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        use_patches = jax.default_backend() == "cpu" if self.use_patches is None else self.use_patches
        if use_patches:
            patches = extract_patches(x, k, self.stride)
            return patches @ jnp.swapaxes(kernel, 0, 1).reshape(-1, self.features) + bias
        pad = (k // 2, k // 2)
        y = jax.lax.conv_general_dilated(
            x, kernel, (self.stride,) * 2, (pad, pad), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias


class UpsamplingConv(nn.Module):
    """``Conv(features)(upsample(x))`` of a plain batch without the larger map: exact, with 2.25 times less work.

    In the doubled map a 3x3 window sees only 2x2 different pixels: for each of the four positions of a pixel within its
    cell a 2x2 convolution of ``x`` with sums of the kernel's rows and columns. Parameters are those of ``Conv``.
    """

    features: int
    kernel_init: Callable = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))

        def fold(kernel: jax.Array, odd: int, axis: int) -> jax.Array:
            first, middle, last = jnp.split(kernel, 3, axis)
            return jnp.concatenate([first + middle, last] if odd else [first, middle + last], axis)

        cells = [
            jax.lax.conv_general_dilated(
                x, fold(fold(kernel, row, 0), column, 1), (1, 1), ((1 - row, row), (1 - column, column)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            for row in (0, 1)
            for column in (0, 1)
        ]  # fmt: skip
        n, height, width, features = cells[0].shape
        y = jnp.stack(cells).reshape(2, 2, n, height, width, features).transpose(2, 3, 0, 4, 1, 5)
        return y.reshape(n, 2 * height, 2 * width, features) + bias


def upsample(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling by 2: ``[B, H, W, C] -> [B, 2H, 2W, C]``."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class NoiseInjection(nn.Module):
    """Adds one Gaussian map per image, scaled by a learned factor per channel.

    ``y[b, h, w, c] = x[b, h, w, c] + scale[c] * n[b, h, w]`` with ``n ~ N(0, 1)`` from the RNG stream
    ``"noise"``. This is the generator's noise injection of arXiv 2601.15061 (after StyleGAN,
    arXiv 1812.04948); it makes images varied, it is not a privacy mechanism.
    """

    initial_scale: float = 0.05

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.constant(self.initial_scale), (x.shape[-1],))
        noise = jax.random.normal(self.make_rng("noise"), (*x.shape[:-1], 1), x.dtype)
        return x + scale * noise


class PixelNorm(nn.Module):
    """Divides each pixel's feature vector by its root mean square (no statistics across examples)."""

    epsilon: float = 1e-6

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
