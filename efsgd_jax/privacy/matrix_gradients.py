"""The gradient of one example with respect to a matrix that meets several vectors of it, such as a layer over tokens.

With x the ``[T, in]`` vectors of an example and d the ``[T, out]`` cotangents of their products, the gradient is
``d^T x``. It is formed for each example, by one product in the order that is fastest for many small matrices.

Its norm could also be had from the ``[T, T]`` Gram matrices of x and of d ("ghost norm": Li et al., 2022, arXiv
2110.05679), and the clipped sum from one product over the tokens of all examples. In float32 both are wrong by a
multiple of ``sum_t |x_t| |d_t|``, which can be any number of times the gradient's norm: an example may be such that its
tokens' terms cancel, and the clipped sum would move by more than the clip norm. What is formed is clipped as it is
added up.
"""

from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.dataflow import ParamUse


def is_matrix_product(use: ParamUse) -> bool:
    """Whether the use multiplies vectors of an example, one or more, by a matrix (or a tensor of any rank)."""
    equation: Any = use.equation
    if equation.primitive.name != "dot_general" or len(use.weights) != 1 or len(use.examples) != 1:
        return False
    _, batch = equation.params["dimension_numbers"]
    return not batch[0]


def product_gradient(use: ParamUse, x: jax.Array, d: jax.Array) -> jax.Array:
    """The gradient of one example with respect to the matrix, its axes in the order that ``as_matrix`` expects.

    Args:
      use: one for which ``is_matrix_product`` holds.
      x: the example's vectors: the example-dependent input of the use.
      d: the cotangent of the use's output.

    Returns:
      At least float32: the matrix's free axes, then the axes along which x and the matrix are multiplied, as in x.
    """
    equation: Any = use.equation
    (at,) = use.examples
    contracting, _ = equation.params["dimension_numbers"]
    vectors = [axis for axis in range(x.ndim) if axis not in contracting[at]]
    # The output has the free axes of the first factor before those of the second one.
    first = 0 if at == 0 else d.ndim - len(vectors)
    return jax.lax.dot_general(
        d,
        x,
        ((range(first, first + len(vectors)), vectors), ((), ())),
        preferred_element_type=jnp.promote_types(d.dtype, jnp.float32),
    )


def as_matrix(use: ParamUse, gradient: jax.Array) -> jax.Array:
    """Rearranges the result of ``product_gradient`` into the shape of the matrix."""
    equation: Any = use.equation
    (at,) = use.examples
    contracting, _ = equation.params["dimension_numbers"]
    of_x, of_matrix = contracting[at], contracting[1 - at]
    free = [axis for axis in range(gradient.ndim) if axis not in of_matrix]
    came_from = {axis: place for place, axis in enumerate(free)}
    came_from |= {m: len(free) + sorted(of_x).index(a) for m, a in zip(of_matrix, of_x, strict=True)}
    return gradient.transpose([came_from[axis] for axis in range(gradient.ndim)])
