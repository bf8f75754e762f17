"""``jax.lax.conv_general_dilated`` with derivatives that stay fast on a CPU, in loops too.

By hand, because a private step takes a multiple of its time there with XLA's derivatives: compare
``benchmarks/training_step.py`` with and without ``EFSGD_JAX_CONVOLUTION=xla``. ``convolution.py`` decides where it is
used.

XLA's CPU backend has quick routines for NHWC images with an HWIO kernel. The derivatives that JAX derives have their
axes in other orders; XLA puts these right at the top level of a program, though not for all sizes, and never inside of
its loops, where the derivative by the kernel then is computed pixel by pixel. Here each derivative is written in the
order that XLA likes. The three maps belong to one trilinear form, ``<c, convolve(x, k)>``, so that any of them is a
derivative of the other two, and they can be differentiated any number of times::

    convolve    (x, k) -> c
    to_images   (c, k) -> x
    to_kernel   (x, c) -> k

They are primitives of JAX, so that a transformation can tell a convolution when it sees one: under ``vmap`` a kernel
of each example's own, as in per-example gradients, becomes a product of patches, where XLA has a convolution in groups
that is many times slower.
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
# NHWC images and HWIO kernels.
IN_ORDER = jax.lax.conv_dimension_numbers((1,) * 4, (1,) * 4, ("NHWC", "HWIO", "NHWC"))
# Numbers of channels up to which a product of our own is faster than XLA's routine: of the inputs, and of the outputs
# by kernel row and by single tap.
FEW_INPUTS, FEW_OUTPUTS, FEWEST_OUTPUTS = 3, 8, 3


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


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Padding,
    dimension_numbers: Any = None,
    **options: Any,
) -> jax.Array:
    """The function of that name in ``jax.lax``; what the layers of ``models`` do not ask of it is left to XLA's."""
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
    """A 3x3 convolution of ``upsample(x)`` without the larger map: exact, with 2.25 times less work.

    In the doubled map a window sees only 2x2 different pixels: for each of the four positions of a pixel within its
    cell a 2x2 convolution of ``x`` with sums of the kernel's rows and columns.
    """

    def fold(kernel: jax.Array, odd: int, axis: int) -> jax.Array:
        first, middle, last = jnp.split(kernel, 3, axis)
        return jnp.concatenate([first + middle, last] if odd else [first, middle + last], axis)

    cells = [
        conv_general_dilated(
            x, fold(fold(kernel, row, 0), column, 1), (1, 1), ((1 - row, row), (1 - column, column)), IN_ORDER
        )
        for row in (0, 1)
        for column in (0, 1)
    ]
    n, height, width, features = cells[0].shape
    y = jnp.stack(cells).reshape(2, 2, n, height, width, features).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(n, 2 * height, 2 * width, features)


def _convolve(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _fastest(x, kernel, geometry.stride, geometry.padding)


def _patches(x: jax.Array, geometry: Geometry) -> jax.Array:
    return extract_patches(x, geometry.window, (geometry.stride, geometry.stride), geometry.padding)


def _convolve_by_patches(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    return _patches(x, geometry) @ as_matrix(kernel)


def _to_images(c: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
    """Every ``stride``-th row and column of the images sees a part of the kernel, in a convolution with stride 1."""
    cells = [-(-side // geometry.stride) for side in geometry.sides]
    phases = []
    for phase in itertools.product(range(geometry.stride), repeat=2):
        # Windows cover row ``stride * i + phase`` with their rows ``first``, ``first + stride`` and so on.
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
    """A convolution in which channels are the examples, and examples the channels."""

    def padding(axis: int) -> tuple[int, int]:
        before = geometry.padding[axis][0]
        seen = geometry.stride * (c.shape[1 + axis] - 1) + geometry.window[axis]
        return before, seen - geometry.sides[axis] - before

    k = _in_order(x.transpose(3, 1, 2, 0), c.transpose(1, 2, 0, 3), 1, [padding(0), padding(1)], step=geometry.stride)
    return k.transpose(1, 2, 0, 3)


def _to_kernel_by_patches(x: jax.Array, c: jax.Array, geometry: Geometry) -> jax.Array:
    # In this order XLA-CPU's product of many small matrices is quicker by a third.
    matrix = jnp.tensordot(c, _patches(x, geometry), axes=((0, 1, 2), (0, 1, 2)))
    return as_kernel(matrix.T, geometry.window)


def _bilinear(name: str, compute: Callable[..., jax.Array], by_patches: Callable[..., jax.Array]) -> Primitive:
    """``compute``, as a primitive; ``by_patches`` is the same map where each example has both arguments of its own."""
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
    each: Callable[..., jax.Array],
    arguments: Sequence[jax.Array],
    axes: Sequence[Any],
    *,
    geometry: Geometry,
) -> tuple[jax.Array, int]:
    """The rule of ``vmap``; ``each`` is for examples that have both arguments of their own."""
    # Images, and what becomes of them, are merged with the batch that they have already.
    if axes[1] is None and primitive is not to_kernel_p:
        many = jnp.moveaxis(arguments[0], axes[0], 0)
        out = primitive.bind(many.reshape(-1, *many.shape[2:]), arguments[1], geometry=geometry)
        return out.reshape(*many.shape[:2], *out.shape[1:]), 0
    return jax.vmap(functools.partial(each, geometry=geometry), tuple(axes))(*arguments), 0


convolve_p = _bilinear("convolve", _convolve, _convolve_by_patches)
to_images_p = _bilinear("convolve_to_images", _to_images, _to_images_by_patches)
to_kernel_p = _bilinear("convolve_to_kernel", _to_kernel, _to_kernel_by_patches)
# The derivatives of each map by its arguments, given the cotangent first: the other two maps.
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

    XLA's is slow if there are few of them. With few input channels, the input patches are multiplied by the kernel.
    With few output channels, one product is made for each row or tap of the kernel; these routines have stride 1, and
    gain nothing if the kernel has a single row.
    """
    if x.shape[-1] <= FEW_INPUTS:
        return extract_patches(x, kernel.shape[:2], (stride, stride), padding) @ as_matrix(kernel)
    if stride == 1 and kernel.shape[0] > 1 and kernel.shape[-1] <= FEW_OUTPUTS:
        return (_by_taps if kernel.shape[-1] <= FEWEST_OUTPUTS else _by_rows)(x, kernel, padding)
    return _in_order(x, kernel, stride, padding)


def _in_order(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, step: int = 1) -> jax.Array:
    # By itself: XLA (jaxlib 0.10.2, CPU) reads outside of the images where padding before is negative and a side is 1.
    x = pad(x, [(min(a, 0), min(b, 0)) for a, b in padding])
    padding = [(max(a, 0), max(b, 0)) for a, b in padding]
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, rhs_dilation=(step, step), dimension_numbers=IN_ORDER
    )


def _by_taps(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """What each pixel of the window makes of the whole image, in one product, and then their sum."""
    h, w, channels, features = kernel.shape
    y = pad(x @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1), padding)
    y = y.reshape(*y.shape[:3], h, w, features)
    height, width = y.shape[1] - h + 1, y.shape[2] - w + 1
    taps = itertools.product(range(h), range(w))
    return functools.reduce(jnp.add, [y[:, i : i + height, j : j + width, i, j] for i, j in taps])


def _by_rows(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """Convolution by one matrix product.

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
