"""``jax.lax.conv_general_dilated`` with derivatives that are fast on a CPU, also inside of loops.

With the derivatives that JAX derives, a private training step on a CPU takes several times as long: compare
``benchmarks/training_step.py`` with and without ``EFSGD_JAX_CONVOLUTION=xla``, which ``convolution.py`` reads.

XLA's CPU backend has fast routines for images in the axis order NHWC (examples, height, width, channels) with a kernel
in the order HWIO (height, width, input channels, output channels). The derivatives that JAX derives have their axes in
other orders. At the top level of a program XLA transposes them to this order, though not for all sizes. Inside of a
loop (``jax.lax.scan``) it does not, and the derivative with respect to the kernel is computed by a slow general
routine. Here each derivative is written as a convolution in the order NHWC and HWIO.

For images ``x``, a kernel ``k`` and an array ``c`` of the shape of the result there are three bilinear functions::

    convolve    (x, k) -> c
    to_images   (c, k) -> x    the derivative of <c, convolve(x, k)> with respect to x
    to_kernel   (x, c) -> k    the derivative of <c, convolve(x, k)> with respect to k

As ``<c, convolve(x, k)>`` is linear in x, k and c, the derivatives of each function are the other two functions.

Each function is a JAX primitive, so that there can be a rule for it under ``vmap``. If each example has a kernel of its
own, as in per-example gradients, the rule multiplies matrices of image patches. The default, XLA's grouped convolution,
is many times slower on a CPU.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from efsgd_jax.privacy.patches import as_kernel, as_matrix, extract_patches, pad

PyTree = Any
Padding = Sequence[tuple[int, int]]
# The axis order of XLA's fast routines: images and results NHWC, kernels HWIO.
IN_ORDER = jax.lax.conv_dimension_numbers((1,) * 4, (1,) * 4, ("NHWC", "HWIO", "NHWC"))
# Largest numbers of channels for which ``_fastest`` multiplies matrices, which is then faster than XLA's routine: input
# channels for the product with patches, and output channels for ``_by_rows`` and for ``_by_taps``.
FEW_INPUTS, FEW_OUTPUTS, FEWEST_OUTPUTS = 3, 8, 3


class Geometry(NamedTuple):
    """The static parameters of a convolution. Each pair has a value for the height and one for the width.

    Attributes:
      stride: step between windows along both axes; at most the kernel's smaller side.
      padding: for each axis, the numbers of zeros before and after the image.
      sides: height and width of the images.
      window: height and width of the kernel.
    """

    stride: int
    padding: tuple[tuple[int, int], ...]
    sides: tuple[int, ...]
    window: tuple[int, ...]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Padding,
    dimension_numbers: Any = None,
    **options: Any,
) -> jax.Array:
    """``jax.lax.conv_general_dilated``, with the same arguments.

    Convolutions in another order than ``IN_ORDER``, with two different strides, a stride larger than the kernel,
    dilation, groups or other options are passed to ``jax.lax``.
    """
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain = numbers == IN_ORDER and all(value in (None, 1, (1, 1)) for value in options.values())
    if not plain or len(set(window_strides)) > 1 or window_strides[0] > min(rhs.shape[:2]):
        return jax.lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, dimension_numbers=dimension_numbers, **options
        )
    sides, window = lhs.shape[1:3], rhs.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(sides, window, window_strides, padding)
    return convolve_p.bind(
        lhs, rhs, geometry=Geometry(window_strides[0], tuple((a, b) for a, b in padding), sides, window)
    )


def convolve_upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution of ``upsample(x)``, which is not computed: the same result with 2.25 times less work.

    ``upsample`` repeats each pixel of ``x`` in a 2x2 square, so that a 3x3 window of it has at most 2x2 different
    pixels. The outputs at even or odd rows and even or odd columns are therefore four 2x2 convolutions of ``x``, whose
    kernels have sums of the rows and columns of ``kernel``. Padding is one zero on each side: ``[B, H, W, C]`` and
    ``[3, 3, C, F]`` give ``[B, 2H, 2W, F]``.
    """

    def fold(kernel: jax.Array, odd: int, axis: int) -> jax.Array:
        """Adds the two of three kernel rows (columns) that see the same pixel in an odd (1) or even (0) output row."""
        first, middle, last = jnp.split(kernel, 3, axis)
        return jnp.concatenate([first + middle, last] if odd else [first, middle + last], axis)

    by_parity = [
        conv_general_dilated(
            x, fold(fold(kernel, row, 0), column, 1), (1, 1), ((1 - row, row), (1 - column, column)), IN_ORDER
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    n, height, width, features = by_parity[0].shape
    y = jnp.stack(by_parity).reshape(2, 2, n, height, width, features).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(n, 2 * height, 2 * width, features)


def _convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _fastest(x, kernel, geometry.stride, geometry.padding)


def _patches(x: jax.Array, geometry: Geometry) -> jax.Array:
    return extract_patches(x, geometry.window, (geometry.stride, geometry.stride), geometry.padding)


def _convolve_by_patches(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _patches(x, geometry) @ as_matrix(kernel)


def _to_images(c: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """The derivative with respect to the images, as ``stride ** 2`` convolutions with stride 1.

    The pixels at rows ``stride * i + p`` and columns ``stride * j + q``, for fixed p and q (a phase), depend on every
    ``stride``-th row and column of the kernel only: a phase is the convolution of ``c`` with this part, flipped.
    """
    # The numbers of rows and columns in a phase, rounded up; what is beyond the image is cut off at the end.
    cells = [-(-side // geometry.stride) for side in geometry.sides]
    phases = []
    for phase in itertools.product(range(geometry.stride), repeat=2):
        # Along each axis, the kernel rows that meet image row ``stride * i + phase``: first, first + stride and so on.
        first = [(p + before) % geometry.stride for p, (before, _) in zip(phase, geometry.padding, strict=True)]
        part = kernel[first[0] :: geometry.stride, first[1] :: geometry.stride][::-1, ::-1]
        padding = []
        for axis in (0, 1):
            taps = part.shape[axis]
            last = first[axis] + geometry.stride * (taps - 1)
            before = (last - phase[axis] - geometry.padding[axis][0]) // geometry.stride
            padding.append((before, cells[axis] + taps - 1 - c.shape[1 + axis] - before))
        phases.append(_fastest(c, jnp.swapaxes(part, 2, 3), 1, padding))
    n, channels = c.shape[0], kernel.shape[2]
    x = jnp.stack(phases).reshape(geometry.stride, geometry.stride, n, *cells, channels).transpose(2, 3, 0, 4, 1, 5)
    x = x.reshape(n, geometry.stride * cells[0], geometry.stride * cells[1], channels)
    return x[:, : geometry.sides[0], : geometry.sides[1]]


def _to_images_by_patches(c: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    x = jax.ShapeDtypeStruct((c.shape[0], *geometry.sides, kernel.shape[2]), c.dtype)
    (x,) = jax.linear_transpose(lambda x: _patches(x, geometry), x)(c @ as_matrix(kernel).T)
    return x


def _to_kernel(x: jax.Array, c: jax.Array, geometry: Geometry) -> jax.Array:
    """The derivative with respect to the kernel, as one convolution with the kernel ``c``, dilated by the stride.

    The channels of ``x`` take the place of the examples, and the examples that of the input channels.
    """

    def padding(axis: int) -> tuple[int, int]:
        """Zeros before and after ``x``, such that the result has the kernel's size. Negative ones remove pixels."""
        before = geometry.padding[axis][0]
        seen = geometry.stride * (c.shape[1 + axis] - 1) + geometry.window[axis]
        return before, seen - geometry.sides[axis] - before

    k = _in_order(x.transpose(3, 1, 2, 0), c.transpose(1, 2, 0, 3), 1, [padding(0), padding(1)], step=geometry.stride)
    return k.transpose(1, 2, 0, 3)


def _to_kernel_by_patches(x: jax.Array, c: jax.Array, geometry: Geometry) -> jax.Array:
    # Transposed, because XLA's CPU backend then multiplies the small matrices of many examples a third faster.
    matrix = jnp.tensordot(c, _patches(x, geometry), axes=((0, 1, 2), (0, 1, 2)))
    return as_kernel(matrix.T, geometry.window)


def _bilinear(name: str, compute: Callable[..., jax.Array], by_patches: Callable[..., jax.Array]) -> Primitive:
    """Makes a JAX primitive of one of the three functions.

    Args:
      name: name of the primitive.
      compute: the function, of two arrays and the keyword ``geometry``.
      by_patches: the same function by products with patches, for ``vmap`` where each example has its own kernel.
    """
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(compute, static_argnames="geometry"))

    @primitive.def_abstract_eval
    def shape(a: Any, b: Any, *, geometry: Geometry) -> Any:
        out = jax.eval_shape(
            functools.partial(compute, geometry=geometry), *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (a, b))
        )
        return jax.core.ShapedArray(out.shape, out.dtype)

    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive, by_patches)
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    return primitive


def _batch(
    primitive: Primitive,
    by_patches: Callable[..., jax.Array],
    arguments: Sequence[jax.Array],
    axes: Sequence[Any],
    *,
    geometry: Geometry,
) -> tuple[jax.Array, int]:
    """JAX's rule for the primitive under ``vmap``; returns the result and its mapped axis, the first.

    ``axes`` has the mapped axis of each argument, or None if ``vmap`` does not map over it. For ``by_patches`` see
    ``_bilinear``.
    """
    # If all examples share the kernel, the mapped axis is merged with the batch axis that the first argument has.
    if axes[1] is None and primitive is not to_kernel_p:
        many = jnp.moveaxis(arguments[0], axes[0], 0)
        out = primitive.bind(many.reshape(-1, *many.shape[2:]), arguments[1], geometry=geometry)
        return out.reshape(*many.shape[:2], *out.shape[1:]), 0
    return jax.vmap(functools.partial(by_patches, geometry=geometry), tuple(axes))(*arguments), 0


convolve_p = _bilinear("convolve", _convolve, _convolve_by_patches)
to_images_p = _bilinear("convolve_to_images", _to_images, _to_images_by_patches)
to_kernel_p = _bilinear("convolve_to_kernel", _to_kernel, _to_kernel_by_patches)
# The derivatives of each function with respect to its two arguments, which are the other two functions. The first
# argument of each lambda is the cotangent, the others are the arguments of the function.
ad.defbilinear(
    convolve_p,
    lambda c, _, k, geometry: to_images_p.bind(c, k, geometry=geometry),
    lambda c, x, _, geometry: to_kernel_p.bind(x, c, geometry=geometry),
)
ad.defbilinear(
    to_images_p,
    lambda x, _, k, geometry: convolve_p.bind(x, k, geometry=geometry),
    lambda x, c, _, geometry: to_kernel_p.bind(x, c, geometry=geometry),
)
ad.defbilinear(
    to_kernel_p,
    lambda k, _, c, geometry: to_images_p.bind(c, k, geometry=geometry),
    lambda k, x, _, geometry: convolve_p.bind(x, k, geometry=geometry),
)


def _fastest(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """The convolution, by the routine that is fastest on a CPU for these numbers of channels.

    XLA's routine is slow for few channels. With few input channels, patches of the input are multiplied by the kernel.
    With few output channels, ``_by_rows`` or ``_by_taps`` is used. These two are for stride 1, and are not faster if
    the kernel has a single row.
    """
    if x.shape[-1] <= FEW_INPUTS:
        return extract_patches(x, kernel.shape[:2], (stride, stride), padding) @ as_matrix(kernel)
    if stride == 1 and kernel.shape[0] > 1 and kernel.shape[-1] <= FEW_OUTPUTS:
        return (_by_taps if kernel.shape[-1] <= FEWEST_OUTPUTS else _by_rows)(x, kernel, padding)
    return _in_order(x, kernel, stride, padding)


def _in_order(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, step: int = 1) -> jax.Array:
    """XLA's convolution; ``step`` is the dilation of the kernel. Padding may be negative."""
    # ``pad`` removes the pixels: for negative padding before an image of side 1, XLA reads outside of the image (jaxlib
    # 0.10.2, CPU).
    x = pad(x, [(min(a, 0), min(b, 0)) for a, b in padding])
    padding = [(max(a, 0), max(b, 0)) for a, b in padding]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, rhs_dilation=(step, step), dimension_numbers=IN_ORDER
    )


def _by_taps(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Convolution with stride 1 by one matrix product, which multiplies each pixel by each tap (pixel of the kernel).

    The products of each tap are shifted by its position and added.
    """
    h, w, channels, features = kernel.shape
    y = pad(x @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1), padding)
    y = y.reshape(*y.shape[:3], h, w, features)
    height, width = y.shape[1] - h + 1, y.shape[2] - w + 1
    taps = itertools.product(range(h), range(w))
    return functools.reduce(jnp.add, [y[:, i : i + height, j : j + width, i, j] for i, j in taps])


def _by_rows(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Convolution with stride 1 by one matrix product.

    The ``w`` horizontal shifts of the input are concatenated as channels, the product gives one output for each of the
    kernel's ``h`` rows, and these outputs, shifted by their rows, are added.
    """
    h, w, channels, features = kernel.shape
    x = pad(x, padding)
    height, width = x.shape[1] - h + 1, x.shape[2] - w + 1
    columns = jnp.concatenate([x[:, :, j : j + width] for j in range(w)], axis=-1)
    y = columns @ kernel.transpose(1, 2, 0, 3).reshape(w * channels, h * features)
    y = y.reshape(*y.shape[:3], h, features)
    return functools.reduce(jnp.add, [y[:, i : i + height, :, i] for i in range(h)])
