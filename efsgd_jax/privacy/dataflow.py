"""Dataflow analysis of a loss: which of its equations combine values that depend on parameters with example data.

A loss for one example is traced to a flat list of jaxpr equations, which are divided into two parts. The *weight
equations* do not depend on the example's data: they transpose or fold kernels, or normalise them by their spectral
norm. The *example equations* are all others. The *weights* are the values that depend on parameters but not on the
example: parameters themselves, or results of weight equations. A *use* is an example equation that has a weight among
its inputs. The gradient of one example reaches the parameters through uses only. Nothing is assumed about layers or
libraries, so that no use is missed of a parameter that is used twice, or through a function of it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

PyTree = Any
# Primitives that do nothing but evaluate another jaxpr, and the name of the equation's parameter that holds this jaxpr.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}


class HiddenFlowError(ValueError):
    """The loss has effects, such as writes to a mutable reference, through which values pass between equations."""


class ParamUse(NamedTuple):
    """A jaxpr equation with both example-dependent and parameter-dependent inputs.

    Attributes:
      equation: the equation of the traced loss.
      weights: positions of the equation's inputs that depend on parameters only and can be differentiated.
      examples: positions of the equation's inputs that depend on the example.
      outputs: positions of the equation's outputs that can be differentiated.
      outputs_like: shapes and dtypes of the outputs at the positions ``outputs``.
      origins: for each input in ``weights``, the positions of the parameters that it depends on.
    """

    equation: JaxprEqn
    weights: tuple[int, ...]
    examples: tuple[int, ...]
    outputs: tuple[int, ...]
    outputs_like: tuple[tuple[tuple[int, ...], Any], ...]
    origins: tuple[frozenset[int], ...]


class Component(NamedTuple):
    """A group of parameters. No use of any of them depends on parameters outside the group.

    Attributes:
      leaves: positions of the group's parameters among the leaves of all parameters.
      weights: variables of the weights that depend on the group's parameters.
      uses: positions, in ``Dataflow.uses``, of the uses with one of ``weights`` among their inputs.
      to_weights: function from the values of the leaves to the values of ``weights``.
      rearranged: whether there is one leaf and one weight, and each element of the weight is one element of the leaf,
        in another order or dtype; ``to_weights`` then keeps the dtype of the leaf.
    """

    leaves: tuple[int, ...]
    weights: tuple[Var, ...]
    uses: tuple[int, ...]
    to_weights: Callable[..., list[jax.Array]]
    rearranged: bool


class Dataflow(NamedTuple):
    """A loss, divided into weight equations and example equations.

    Attributes:
      uses: the uses, in the order of the program.
      components: the parameters that reach the loss, divided into independent groups.
      read: variables that do not depend on the example and are inputs of example equations or outputs of the loss.
      weights_side: function from the parameters' leaves to the values of ``read``.
      example_side: function that evaluates the example equations. Its arguments are the values of ``read``, the
        example's leaves, and for each use one addend for each of its differentiable outputs. It returns the outputs of
        the loss, as leaves, and the example-dependent inputs of each use.
      tree: the pytree structure of the loss's outputs.
      depends: whether the first output, the loss, depends on the example.
    """

    uses: tuple[ParamUse, ...]
    components: tuple[Component, ...]
    read: tuple[Var, ...]
    weights_side: Callable[..., list[jax.Array]]
    example_side: Callable[..., tuple[list[jax.Array], list[list[jax.Array]]]]
    tree: Any
    depends: bool


def take_apart(loss: Callable[..., PyTree], params: PyTree, example: PyTree) -> Dataflow:
    """Traces ``loss(params, *example)`` and divides its equations; ``params`` and ``example`` may be shapes and dtypes.

    Args:
      loss: a loss for one example; its first output is the scalar to be differentiated.
      params: pytree of the parameters.
      example: the other arguments of the loss.

    Raises:
      HiddenFlowError: the loss has effects.
    """
    closed, out_shape = jax.make_jaxpr(loss, return_shape=True)(params, *example)
    if closed.effects:
        raise HiddenFlowError(
            f"the loss has effects ({', '.join(map(str, closed.effects))}), such as a mutable reference, through which "
            "values pass unseen; method='vmap' forms every gradient."
        )
    closed = jax.make_jaxpr(functools.partial(_without_calls, closed.jaxpr, closed.consts))(*closed.in_avals)
    jaxpr: Jaxpr = closed.jaxpr
    count = len(jax.tree.leaves(params))
    parameters, from_example = jaxpr.invars[:count], set(jaxpr.invars[count:])
    # For each variable that does not depend on the example: the positions of the parameters that it depends on.
    origins: dict[Var, frozenset[int]] = {v: frozenset([i]) for i, v in enumerate(parameters)}
    weight_equations, example_equations = [], []
    for equation in jaxpr.eqns:
        inputs = [v for v in equation.invars if isinstance(v, Var)]
        if any(v in from_example for v in inputs):
            from_example.update(equation.outvars)
            example_equations.append(equation)
        else:
            origin = frozenset[int]().union(*(origins.get(v, frozenset()) for v in inputs))
            origins.update((v, origin if _differentiable(v) else frozenset()) for v in equation.outvars)
            weight_equations.append(equation)

    def as_function(invars: Sequence[Var], outvars: Sequence[Var]) -> tuple[Callable[..., list[jax.Array]], list[Any]]:
        """``outvars`` as a function of ``invars``, and the weight equations that compute it, the last one first."""
        needed, equations = set(outvars), []
        for equation in reversed(weight_equations):
            if any(v in needed for v in equation.outvars):
                needed.update(v for v in equation.invars if isinstance(v, Var))
                equations.append(equation)
        part = _program(jaxpr.constvars, invars, outvars, equations[::-1])
        return jaxpr_as_fun(ClosedJaxpr(part, closed.consts)), equations

    ends = [v for v in jaxpr.outvars if isinstance(v, Var)]
    used = [v for equation in example_equations for v in equation.invars if isinstance(v, Var)]
    read = tuple(dict.fromkeys(v for v in used + ends if v not in from_example))
    uses = tuple(m for equation in example_equations if (m := _use_of(equation, origins, from_example)).weights)
    at = {id(m.equation): i for i, m in enumerate(uses)}

    def example_side(
        weights: Sequence[jax.Array], example: Sequence[jax.Array], addends: Sequence[Sequence[jax.Array]]
    ) -> tuple[list[jax.Array], list[list[jax.Array]]]:
        values = dict(zip([*read, *jaxpr.invars[count:]], [*weights, *example], strict=True))
        met: list[list[jax.Array]] = []
        for equation in example_equations:
            inputs = [_value(v, values) for v in equation.invars]
            outputs = evaluate(equation, inputs)
            if id(equation) in at:
                use = uses[at[id(equation)]]
                met.append([inputs[i] for i in use.examples])
                for i, addend in zip(use.outputs, addends[at[id(equation)]], strict=True):
                    outputs[i] = outputs[i] + addend
            values.update(zip(equation.outvars, outputs, strict=True))
        return [_value(v, values) for v in jaxpr.outvars], met

    components = []
    together = [frozenset[int]().union(*m.origins) for m in uses]
    for leaves in _joined(together):
        weights = tuple(v for v in read if origins.get(v, frozenset()) & leaves)
        order = tuple(sorted(leaves))
        to_weights, equations = as_function([parameters[i] for i in order], weights)
        readers = tuple(i for i, m in enumerate(uses) if any(m.equation.invars[j] in weights for j in m.weights))
        rearranged = len(order) == len(weights) == 1 and all(_rearranges(e) for e in equations)
        if rearranged:
            to_weights = functools.partial(_rearrange, equations[::-1])
        components.append(Component(order, weights, readers, to_weights, rearranged))
    return Dataflow(
        uses,
        tuple(components),
        read,
        as_function(parameters, read)[0],
        example_side,
        jax.tree.structure(out_shape),
        jaxpr.outvars[0] in from_example if isinstance(jaxpr.outvars[0], Var) else False,
    )


def evaluate(equation: JaxprEqn, inputs: Sequence[jax.Array]) -> list[jax.Array]:
    """Evaluates one equation for the values ``inputs`` of its inputs, and returns its outputs."""
    variables = dict.fromkeys(v for v in equation.invars if isinstance(v, Var))
    given = {v: x for v, x in zip(equation.invars, inputs, strict=True) if isinstance(v, Var)}
    program = _program((), list(variables), equation.outvars, [equation])
    return list(jaxpr_as_fun(ClosedJaxpr(program, ()))(*(given[v] for v in variables)))


def _program(constvars: Sequence[Var], invars: Sequence[Var], outvars: Sequence[Var], equations: list[Any]) -> Jaxpr:
    effects = frozenset().union(*(e.effects for e in equations))
    return _empty_program().replace(
        constvars=list(constvars), invars=list(invars), outvars=list(outvars), eqns=equations, effects=effects
    )


@functools.cache
def _empty_program() -> Any:
    return jax.make_jaxpr(lambda: ())().jaxpr


def _without_calls(jaxpr: Jaxpr, constants: Sequence[jax.Array], *arguments: jax.Array) -> list[jax.Array]:
    """Evaluates a jaxpr with the bodies of calls inlined; traced again, it gives a flat list of equations."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))
    for equation in jaxpr.eqns:
        inputs = [_value(v, values) for v in equation.invars]
        if equation.primitive.name in CALLS:
            body = equation.params[CALLS[equation.primitive.name]]
            body, inside = (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())
            outputs = _without_calls(body, inside, *inputs)
        else:
            outputs = evaluate(equation, inputs)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [_value(v, values) for v in jaxpr.outvars]


def _value(v: Any, values: dict[Var, jax.Array]) -> Any:
    return v.val if isinstance(v, Literal) else values[v]


def _differentiable(v: Any) -> bool:
    return jnp.issubdtype(v.aval.dtype, jnp.inexact)


def _use_of(equation: Any, origins: dict[Var, frozenset[int]], from_example: set[Var]) -> ParamUse:
    """An example equation as a ``ParamUse``; it is a use if its field ``weights`` is not empty.

    Args:
      equation: the equation.
      origins: for each variable that does not depend on the example, the positions of the parameters it depends on.
      from_example: the variables that depend on the example.
    """
    inputs = [(i, v) for i, v in enumerate(equation.invars) if isinstance(v, Var)]
    outputs = tuple(i for i, v in enumerate(equation.outvars) if _differentiable(v))
    weights = tuple(i for i, v in inputs if origins.get(v)) if outputs else ()
    like = tuple((v.aval.shape, v.aval.dtype) for v in (equation.outvars[i] for i in outputs))
    examples = tuple(i for i, v in inputs if v in from_example)
    return ParamUse(equation, weights, examples, outputs, like, tuple(origins[equation.invars[i]] for i in weights))


def _rearrange(equations: Sequence[JaxprEqn], leaf: jax.Array) -> list[jax.Array]:
    """Applies the equations to the leaf, one after the other, but skips conversions of the dtype."""
    for equation in equations:
        if equation.primitive.name != "convert_element_type":
            (leaf,) = evaluate(equation, [leaf])
    return [leaf]


def _joined(sets: list[frozenset[int]]) -> list[frozenset[int]]:
    """Merges sets that overlap, until the sets are disjoint."""
    joined: list[frozenset[int]] = []
    for some in sets:
        overlapping = [j for j in joined if j & some]
        joined = [j for j in joined if not j & some] + [some.union(*overlapping)]
    return joined


def _rearranges(equation: Any) -> bool:
    """Whether an equation only reorders the elements of its one input, or converts them from float to float."""
    name, (source, *more) = equation.primitive.name, equation.invars
    kept = not more and source.aval.size == equation.outvars[0].aval.size
    same = ("reshape", "transpose", "squeeze", "expand_dims", "broadcast_in_dim", "rev", "copy")
    wider = name == "convert_element_type" and _differentiable(equation.outvars[0]) and _differentiable(source)
    return kept and (name in same or wider)
