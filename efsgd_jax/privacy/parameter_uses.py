"""What one example adds to the gradient of the weights that it meets."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn, Literal, Var

from efsgd_jax.privacy.dataflow import ParamUse, evaluate
from efsgd_jax.privacy.rounding import sum_of_squares, wide

# Lengths below this are measured in its units: float32 squares of numbers this small vanish.
TINY = 1e-30


def is_outer_product(use: ParamUse) -> bool:
    """Whether one vector of the example meets a matrix, or the example reads one slice of a table."""
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
    """``|x| |d|``, or ``|d|`` where ``x`` says only which slice; of one example, a float32 scalar."""
    d = _length(cotangents[0])
    return _length(met[0]) * d if use.equation.primitive.name == "dot_general" else d


def outer_product_sum(
    use: ParamUse, met: Sequence[jax.Array], cotangents: Sequence[jax.Array], weights: Mapping[Var, jax.Array]
) -> jax.Array:
    """The sum of the gradients of a batch in float32 or wider, as one product; arguments have a batch axis in front."""
    equation: Any = use.equation
    (at,) = use.weights
    params = dict(equation.params)
    if equation.primitive.name == "dot_general":
        params["preferred_element_type"] = None
        # Accelerators round float32 factors by default, and a rounded term can be longer than its bound.
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
    """The gradient of each weight that one example meets there."""
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
    """Of an equation: ``mine`` by their positions, and what does not depend on the example."""
    return [
        mine[i] if i in mine else v.val if isinstance(v, Literal) else weights[v] for i, v in enumerate(equation.invars)
    ]


def _length(x: jax.Array) -> jax.Array:
    """L2 norm, in float32 or wider, of numbers of any size: ``|x| |d|`` must not be 0 because ``|x|^2`` is."""
    x = wide(x).reshape(-1)
    scale = jnp.maximum(jnp.max(jnp.abs(x)), TINY)
    return scale * jnp.sqrt(sum_of_squares(x / scale))
