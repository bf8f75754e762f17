"""The gradient of one example with respect to the weights of a use (``dataflow.ParamUse``), its norm, and its sum.

In this module ``met`` are the example-dependent inputs of the use's equation: the activations, or the index of a slice.
``cotangents`` are the cotangents of the use's outputs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal, Var

from efsgd_jax.privacy.dataflow import ParamUse, evaluate
from efsgd_jax.privacy.rounding import sum_of_squares, wide

# A vector is divided by its largest absolute value, but at least by this, before it is squared: in float32 the squares
# of very small numbers are 0.
TINY = 1e-30


def is_outer_product(use: ParamUse) -> bool:
    """Whether the use multiplies one vector of each example by a matrix, or reads one slice of a table per example."""
    equation: Any = use.equation
    name, params = equation.primitive.name, equation.params
    if name == "dot_general" and len(use.weights) == 1:
        at = use.examples[0]
        contracting, batch = params["dimension_numbers"]
        x = equation.invars[at].aval
        return not batch[0] and x.size == math.prod(x.shape[axis] for axis in contracting[at])
    if name == "gather" and use.weights == (0,):
        return equation.outvars[0].aval.size == math.prod(params["slice_sizes"])
    return name == "dynamic_slice" and use.weights == (0,)


def outer_product_norm(use: ParamUse, met: Sequence[jax.Array], cotangents: Sequence[jax.Array]) -> jax.Array:
    """The norm of one example's gradient: ``|x| |d|``, or ``|d|`` where x is only the index of a slice.

    Args:
      use: one for which ``is_outer_product`` holds.
      met: x, the example-dependent inputs of the use, of one example.
      cotangents: d, the cotangents of the use's outputs, of one example.

    Returns:
      float scalar, float32 or wider.
    """
    d = _length(cotangents[0])
    return _length(met[0]) * d if use.equation.primitive.name == "dot_general" else d


def outer_product_sum(
    use: ParamUse, met: Sequence[jax.Array], cotangents: Sequence[jax.Array], weights: Mapping[Var, jax.Array]
) -> jax.Array:
    """The sum of the gradients of a batch, as one product, in float32 or wider.

    Args:
      use: one for which ``is_outer_product`` holds.
      met: the example-dependent inputs of the use, each with a leading batch axis.
      cotangents: the cotangents of the use's outputs, each with a leading batch axis.
      weights: the values of the variables that do not depend on the example.
    """
    equation: Any = use.equation
    (at,) = use.weights
    params = dict(equation.params)
    if equation.primitive.name == "dot_general":
        params["preferred_element_type"] = None
        # Accelerators round float32 factors by default, and the norm of a rounded term can exceed its bound.
        params["precision"] = (jax.lax.Precision.HIGHEST,) * 2

    def outputs(matrix: jax.Array) -> jax.Array:
        def of_one(*met: jax.Array) -> jax.Array:
            mine = {**dict(zip(use.examples, met, strict=True)), at: matrix}
            return equation.primitive.bind(*_inputs(equation, mine, weights), **params)

        return jax.vmap(of_one)(*map(wide, met))

    (total,) = jax.vjp(outputs, wide(weights[equation.invars[at]]))[1](wide(cotangents[0]))
    return total


def weight_gradients(
    use: ParamUse, met: Sequence[jax.Array], cotangents: Sequence[jax.Array], weights: Mapping[Var, jax.Array]
) -> dict[Var, jax.Array]:
    """The gradient of one example with respect to each weight of the use, for that use alone.

    ``met`` and ``cotangents`` are those of one example; ``weights`` are the values of the variables that do not depend
    on the example.
    """
    equation: Any = use.equation
    given = dict(zip(use.examples, met, strict=True))

    def outputs(*own: jax.Array) -> list[jax.Array]:
        mine = {**given, **dict(zip(use.weights, own, strict=True))}
        done = evaluate(equation, _inputs(equation, mine, weights))
        return [done[i] for i in use.outputs]

    gradients = jax.vjp(outputs, *(weights[equation.invars[i]] for i in use.weights))[1](list(cotangents))
    sums: dict[Var, jax.Array] = {}
    for i, g in zip(use.weights, gradients, strict=True):
        v = equation.invars[i]
        sums[v] = sums[v] + g if v in sums else g
    return sums


def _inputs(equation: JaxprEqn, mine: Mapping[int, jax.Array], weights: Mapping[Var, jax.Array]) -> list[Any]:
    """All inputs of an equation: ``mine`` at its positions, elsewhere literals and the values in ``weights``."""
    return [
        mine[i] if i in mine else v.val if isinstance(v, Literal) else weights[v] for i, v in enumerate(equation.invars)
    ]


def _length(x: jax.Array) -> jax.Array:
    """L2 norm of ``x``, in float32 or wider, scaled so that squares of small numbers do not underflow to 0.

    ``|x| |d|`` must not be 0 only because ``|x|^2`` underflows.
    """
    x = wide(x).reshape(-1)
    scale = jnp.maximum(jnp.max(jnp.abs(x)), TINY)
    return scale * jnp.sqrt(sum_of_squares(x / scale))
