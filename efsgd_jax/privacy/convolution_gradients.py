"""The gradient of a convolution's kernel, of one example, as a product of patches.

What XLA makes of it under ``vmap`` is a convolution in as many groups as there are examples, which is slow everywhere.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.dataflow import ParamUse
from efsgd_jax.privacy.patches import as_kernel, extract_patches


class ConvDimensionNumbers(NamedTuple):
    """A convolution as ``jax.lax.conv_general_dilated`` knows it, and the orders of its axes.

    Attributes:
      images: axes of the images: batch, sides, channels.
      outputs: axes of the result, likewise.
      kernel: axes of the kernel: sides, channels, features.
      window: sides of the kernel.
      strides: between windows.
      padding: before and after.
      dilation: of the kernel.
      base_dilation: of the images.
      groups: into which the channels fall.
    """

    images: Sequence[int]
    outputs: Sequence[int]
    kernel: Sequence[int]
    window: Sequence[int]
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    dilation: Sequence[int]
    base_dilation: Sequence[int]
    groups: int


def windows_of(use: ParamUse) -> ConvDimensionNumbers | None:
    """Of the convolution of an example's images with a kernel, if the use is one."""
    equation: Any = use.equation
    name, params = equation.primitive.name, equation.params
    if use.weights != (1,):
        return None
    kernel = equation.invars[1].aval.shape
    if name == "convolve":
        g, order = params["geometry"], (0, 1, 2, 3)
        return ConvDimensionNumbers(order, order, order, g.window, (g.stride,) * 2, g.padding, (1, 1), (1, 1), 1)
    if name != "conv_general_dilated" or params["batch_group_count"] != 1:
        return None
    images, rhs, outputs = params["dimension_numbers"]
    return ConvDimensionNumbers(
        (images[0], *images[2:], images[1]),
        (outputs[0], *outputs[2:], outputs[1]),
        (*rhs[2:], rhs[1], rhs[0]),
        [kernel[axis] for axis in rhs[2:]],
        params["window_strides"],
        params["padding"],
        params["rhs_dilation"],
        params["lhs_dilation"],
        params["feature_group_count"],
    )


def kernel_matrices(windows: ConvDimensionNumbers, x: jax.Array, d: jax.Array) -> jax.Array:
    """The kernel's gradient for images ``x`` and the cotangent ``d``: ``[groups, features, rows of a patch]``."""

    def in_groups(a: jax.Array, axes: Sequence[int]) -> jax.Array:
        a = a.transpose(axes)
        return jnp.moveaxis(a.reshape(*a.shape[:-1], windows.groups, -1), -2, 0)

    def patches(x: jax.Array) -> jax.Array:
        w = windows
        return extract_patches(x, w.window, w.strides, w.padding, w.dilation, w.base_dilation)

    x, d = in_groups(x, windows.images), in_groups(d, windows.outputs)
    axes = tuple(range(1, d.ndim - 1))
    # Features first: in this order XLA-CPU's product of many small matrices is quickest.
    return jax.lax.dot_general(
        d,
        jax.vmap(patches)(x),
        ((axes, axes), ((0,), (0,))),
        preferred_element_type=jnp.promote_types(d.dtype, jnp.float32),
    )


def as_weights(windows: ConvDimensionNumbers, matrices: jax.Array) -> jax.Array:
    """``kernel_matrices`` in the kernel's own order of axes."""
    kernels = as_kernel(jnp.swapaxes(matrices, 1, 2), windows.window)  # [groups, *window, channels, features]
    kernel = jnp.moveaxis(kernels, 0, -2).reshape(*windows.window, kernels.shape[-2], -1)
    return kernel.transpose([windows.kernel.index(axis) for axis in range(kernel.ndim)])
