"""Convolution of a batch whose derivatives stay fast on a CPU, in loops too.

XLA's CPU backend has quick routines for NHWC images with an HWIO kernel. The derivatives that JAX derives have their
axes in other orders; XLA puts these right at the top level of a program, though not for all sizes, and never inside of
its loops, where the derivative by the kernel then is computed pixel by pixel. Here each derivative is written in the
order that XLA likes. The three maps belong to one trilinear form, ``<c, convolve(x, k)>``, so that any of them is a
derivative of the other two, and they can be differentiated any number of times::

    convolve    (x, k) -> c
    to_images   (c, k) -> x
    to_kernel   (x, c) -> k
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

Padding = Sequence[tuple[int, int]]
# Channels up to which a product of our own is quicker than XLA's routine.
FEW_INPUTS, FEW_OUTPUTS = 3, 8


class Geometry(NamedTuple):
    """What does not depend on values; pairs are height, then width.

    Attributes:
      stride: step between windows, at most a window's side.
      padding: zeros before and after.
      sides: of an image.
      window: of the kernel.
    """

    stride: int
    padding: tuple[tuple[int, int], ...]
    sides: tuple[int, ...]
    window: tuple[int, ...]


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """``[B, H, W, C]`` and ``[h, w, C, F]`` give ``[B, H', W', F]``: the backend's own convolution, but on a CPU."""
    if jax.default_backend() != "cpu":
        return _in_order(x, kernel, stride, padding)
    return _convolve(x, kernel, Geometry(stride, tuple(padding), x.shape[1:3], kernel.shape[:2]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, g: Geometry) -> jax.Array:
    return _best(x, kernel, g.stride, g.padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _to_images(c: jax.Array, kernel: jax.Array, g: Geometry) -> jax.Array:
    """Every ``stride``-th row and column of the images sees a part of the kernel, in a convolution with stride 1."""
    cells = [-(-side // g.stride) for side in g.sides]
    phases = []
    for phase in itertools.product(range(g.stride), repeat=2):
        # Windows cover row ``stride * i + phase`` with their rows ``first``, ``first + stride`` and so on.
        first = [(p + before) % g.stride for p, (before, _) in zip(phase, g.padding, strict=True)]
        part = kernel[first[0] :: g.stride, first[1] :: g.stride][::-1, ::-1]
        padding = []
        for axis in (0, 1):
            taps = part.shape[axis]
            last = first[axis] + g.stride * (taps - 1)
            before = (last - phase[axis] - g.padding[axis][0]) // g.stride
            padding.append((before, cells[axis] + taps - 1 - c.shape[1 + axis] - before))
        phases.append(_best(c, jnp.swapaxes(part, 2, 3), 1, padding))
    n, channels = c.shape[0], kernel.shape[2]
    x = jnp.stack(phases).reshape(g.stride, g.stride, n, *cells, channels).transpose(2, 3, 0, 4, 1, 5)
    x = x.reshape(n, g.stride * cells[0], g.stride * cells[1], channels)
    return x[:, : g.sides[0], : g.sides[1]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _to_kernel(x: jax.Array, c: jax.Array, g: Geometry) -> jax.Array:
    """A convolution in which channels are the examples, and examples the channels."""

    def padding(axis: int) -> tuple[int, int]:
        before = g.padding[axis][0]
        seen = g.stride * (c.shape[1 + axis] - 1) + g.window[axis]
        return before, seen - g.sides[axis] - before

    k = _in_order(x.transpose(3, 1, 2, 0), c.transpose(1, 2, 0, 3), 1, [padding(0), padding(1)], step=g.stride)
    return k.transpose(1, 2, 0, 3)


_convolve.defvjp(
    lambda x, k, g: (_convolve(x, k, g), (x, k)),
    lambda g, saved, c: (_to_images(c, saved[1], g), _to_kernel(saved[0], c, g)),
)
_to_images.defvjp(
    lambda c, k, g: (_to_images(c, k, g), (c, k)),
    lambda g, saved, x: (_convolve(x, saved[1], g), _to_kernel(x, saved[0], g)),
)
_to_kernel.defvjp(
    lambda x, c, g: (_to_kernel(x, c, g), (x, c)),
    lambda g, saved, k: (_to_images(saved[1], k, g), _convolve(saved[0], k, g)),
)


def _best(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """XLA's routine needs channels to work on."""
    if x.shape[-1] <= FEW_INPUTS:
        return extract_patches(x, kernel.shape[:2], stride, padding) @ as_matrix(kernel)
    if stride == 1 and kernel.shape[0] > 1 and kernel.shape[-1] <= FEW_OUTPUTS:
        return (_by_taps if kernel.shape[-1] <= FEW_INPUTS else _by_rows)(x, kernel, padding)
    return _in_order(x, kernel, stride, padding)


def _in_order(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, step: int = 1) -> jax.Array:
    # By itself: XLA (jaxlib 0.10.2, CPU) reads outside of the images where padding before is negative and a side is 1.
    x = _pad(x, [(min(a, 0), min(b, 0)) for a, b in padding])
    padding = [(max(a, 0), max(b, 0)) for a, b in padding]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, rhs_dilation=(step, step), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _by_taps(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """What each pixel of the window makes of the whole image, in one product, and then their sum."""
    h, w, channels, features = kernel.shape
    y = _pad(x @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1), padding)
    y = y.reshape(*y.shape[:3], h, w, features)
    height, width = y.shape[1] - h + 1, y.shape[2] - w + 1
    taps = itertools.product(range(h), range(w))
    return functools.reduce(jnp.add, [y[:, i : i + height, j : j + width, i, j] for i, j in taps])


def _by_rows(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Every row of the window by itself, in one product, and then their sum."""
    h, w, channels, features = kernel.shape
    x = _pad(x, padding)
    height, width = x.shape[1] - h + 1, x.shape[2] - w + 1
    columns = jnp.concatenate([x[:, :, j : j + width] for j in range(w)], axis=-1)
    y = columns @ kernel.transpose(1, 2, 0, 3).reshape(w * channels, h * features)
    y = y.reshape(*y.shape[:3], h, features)
    return functools.reduce(jnp.add, [y[:, i : i + height, :, i] for i in range(h)])


def extract_patches(x: jax.Array, window: tuple[int, ...], stride: int, padding: Padding) -> jax.Array:
    """What every window sees, by strided slices: ``[B, H, W, C]`` gives ``[B, H', W', h * w * C]``.

    The last axis is column, row, channel, the last fastest: that of ``as_matrix(kernel)``.
    """
    x = _pad(x, padding)
    rows, columns = (stride * ((side - k) // stride) + 1 for side, k in zip(x.shape[1:3], window, strict=True))
    # Rows, then columns: 2 k slices instead of k^2, which XLA compiles, and copies, faster.
    x = jnp.concatenate([x[:, i : i + rows : stride] for i in range(window[0])], axis=-1)
    return jnp.concatenate([x[:, :, j : j + columns : stride] for j in range(window[1])], axis=-1)


def as_matrix(kernel: jax.Array) -> jax.Array:
    """``[h, w, C, F]`` as ``[w * h * C, F]``: a convolution is ``extract_patches(x) @ as_matrix(kernel)``."""
    return jnp.swapaxes(kernel, 0, 1).reshape(-1, kernel.shape[-1])


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    """Negative padding cuts off."""
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)))
