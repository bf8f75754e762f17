"""The patches of an image that the windows of a convolution cover, as rows of a matrix."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Padding = Sequence[tuple[int, int]]


def extract_patches(
    x: jax.Array,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Padding,
    dilation: Sequence[int] | None = None,
    base_dilation: Sequence[int] | None = None,
) -> jax.Array:
    """The patch of every window, by strided slices: ``[B, H, W, C]`` gives ``[B, H', W', w * h * C]``.

    There may be any number of spatial axes. The order of the last axis is that of the rows of ``as_matrix(kernel)``.

    Args:
      x: images, ``[B, *spatial axes, C]``.
      window: size of the kernel along each spatial axis.
      strides: step between windows, along each spatial axis.
      padding: zeros before and after the image, along each spatial axis; negative padding removes pixels.
      dilation: step between the pixels of a window, along each spatial axis; None for 1.
      base_dilation: step between the pixels of ``x``, with zeros between them, as in transposed convolutions; None
        for 1.
    """
    x = pad(x, padding, base_dilation)
    dilation = dilation or [1] * len(window)
    # Axis by axis: this takes 2 k slices instead of k^2, which XLA compiles and copies faster.
    for axis, (k, stride, step) in enumerate(zip(window, strides, dilation, strict=True), start=1):
        count = (x.shape[axis] - step * (k - 1) - 1) // stride + 1
        views = [jax.lax.slice_in_dim(x, i * step, i * step + stride * (count - 1) + 1, stride, axis) for i in range(k)]
        x = jnp.concatenate(views, axis=-1)
    return x


def as_matrix(kernel: jax.Array) -> jax.Array:
    """``[h, w, C, F]`` as ``[w * h * C, F]``: a convolution is ``extract_patches(x) @ as_matrix(kernel)``."""
    spatial = kernel.ndim - 2
    return kernel.transpose(*reversed(range(spatial)), spatial, spatial + 1).reshape(-1, kernel.shape[-1])


def as_kernel(matrix: jax.Array, window: Sequence[int]) -> jax.Array:
    """``[..., w * h * C, F]`` as ``[..., h, w, C, F]``, the inverse of ``as_matrix``."""
    kernel = matrix.reshape(*matrix.shape[:-2], *reversed(window), -1, matrix.shape[-1])
    first, n = matrix.ndim - 2, len(window)
    return kernel.transpose(*range(first), *reversed(range(first, first + n)), first + n, first + n + 1)


def pad(x: jax.Array, padding: Padding, base_dilation: Sequence[int] | None = None) -> jax.Array:
    """Puts zeros around and between the pixels of ``[B, *spatial axes, C]``; negative padding removes pixels."""
    between = [step - 1 for step in base_dilation or [1] * len(padding)]
    config = [(0, 0, 0), *((*p, b) for p, b in zip(padding, between, strict=True)), (0, 0, 0)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)
