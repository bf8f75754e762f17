"""The gradient of one example with respect to a convolution's kernel, as a product of patches and cotangents.

Under ``vmap`` XLA computes this gradient as a convolution with as many groups as there are examples, which is slow on
all backends.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.dataflow import ParamUse
from efsgd_jax.privacy.patches import as_kernel, extract_patches


class ConvParameters(NamedTuple):
    """The parameters of a convolution, as in ``jax.lax.conv_general_dilated``, and the orders of its axes.

    Attributes:
      image_axes: positions of the axes of the images, in the order batch, spatial axes, channels.
      output_axes: positions of the axes of the result, in the order batch, spatial axes, features.
      kernel_axes: positions of the axes of the kernel, in the order spatial axes, channels, features.
      window: size of the kernel along each spatial axis.
      strides: steps between windows, along each spatial axis.
      padding: zeros before and after the image, along each spatial axis.
      kernel_dilation: dilation of the kernel, along each spatial axis.
      image_dilation: dilation of the images, along each spatial axis.
      groups: number of groups into which the channels are divided.
    """

    image_axes: Sequence[int]
    output_axes: Sequence[int]
    kernel_axes: Sequence[int]
    window: Sequence[int]
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    kernel_dilation: Sequence[int]
    image_dilation: Sequence[int]
    groups: int


def conv_parameters(use: ParamUse) -> ConvParameters | None:
    """The parameters of the convolution if the use convolves an example's images with a kernel, otherwise None."""
    equation: Any = use.equation
    name, params = equation.primitive.name, equation.params
    if use.weights != (1,):
        return None
    kernel = equation.invars[1].aval.shape
    if name == "convolve":  # the primitive of ``models.cpu_convolution``
        g, order = params["geometry"], (0, 1, 2, 3)
        return ConvParameters(order, order, order, g.window, (g.stride,) * 2, g.padding, (1, 1), (1, 1), 1)
    if name != "conv_general_dilated" or params["batch_group_count"] != 1:
        return None
    images, rhs, outputs = params["dimension_numbers"]
    return ConvParameters(
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


def kernel_matrices(conv: ConvParameters, x: jax.Array, d: jax.Array) -> jax.Array:
    """The gradient of one example with respect to the kernel: ``[groups, features, elements of a patch]``.

    Args:
      conv: the parameters of the convolution.
      x: the example's images.
      d: the cotangent of the convolution's result.
    """

    def in_groups(a: jax.Array, axes: Sequence[int]) -> jax.Array:
        a = a.transpose(axes)
        return jnp.moveaxis(a.reshape(*a.shape[:-1], conv.groups, -1), -2, 0)

    def patches(x: jax.Array) -> jax.Array:
        return extract_patches(x, conv.window, conv.strides, conv.padding, conv.kernel_dilation, conv.image_dilation)

    x, d = in_groups(x, conv.image_axes), in_groups(d, conv.output_axes)
    axes = tuple(range(1, d.ndim - 1))
    # Features first: in this order XLA's product of many small matrices is fastest on a CPU.
    return jax.lax.dot_general(
        d,
        jax.vmap(patches)(x),
        ((axes, axes), ((0,), (0,))),
        preferred_element_type=jnp.promote_types(d.dtype, jnp.float32),
    )


def as_weights(conv: ConvParameters, matrices: jax.Array) -> jax.Array:
    """Rearranges the result of ``kernel_matrices`` into the shape of the kernel."""
    kernels = as_kernel(jnp.swapaxes(matrices, 1, 2), conv.window)  # [groups, *window, channels, features]
    kernel = jnp.moveaxis(kernels, 0, -2).reshape(*conv.window, kernels.shape[-2], -1)
    return kernel.transpose([conv.kernel_axes.index(axis) for axis in range(kernel.ndim)])
