"""Norms of per-example gradients, and their weighted sum, in little more than one plain backward pass.

One backward pass to the *uses* of a loss (see ``dataflow``) gives, for each use, its example-dependent inputs ``x_i``
(activations) and the cotangents ``d_i`` of its outputs. From these two the gradient with respect to the use's weights
follows without a second pass:

* If one vector of each example is multiplied by a matrix, the gradient of the matrix is ``x_i d_i^T``. Its norm is
  ``|x_i| |d_i|`` and the weighted sum is one product ``X^T diag(w) D``, so that no per-example gradient is formed.
* If each example reads one row of a table, such as an embedding, no per-example gradient is formed either.
* All other gradients are formed for each example: for convolutions by a product of patches, for matrices that meet
  several vectors of an example, such as tokens, by a product of these (``matrix_gradients``, which says why not from
  Gram matrices). Such weights are usually small in comparison with the activations.

After "Ghost norm" (Goodfellow, 2015, arXiv 1510.01799; Li et al., 2022, arXiv 2110.05679) and book-keeping
(Bu et al., 2023, arXiv 2210.00038).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.clipped_sum import PerExample, masked_sum, squared_norm
from efsgd_jax.privacy.convolution_gradients import ConvParameters, as_weights, conv_parameters, kernel_matrices
from efsgd_jax.privacy.dataflow import Component, Dataflow, ParamUse, take_apart
from efsgd_jax.privacy.matrix_gradients import as_matrix, is_matrix_product, product_gradient
from efsgd_jax.privacy.parameter_uses import is_outer_product, outer_product_norm, outer_product_sum, weight_gradients
from efsgd_jax.privacy.rounding import round_once, sum_in_blocks, wide
from efsgd_jax.privacy.varying import first_of, varying_like

PyTree = Any


class ExampleIndependentLossError(ValueError):
    """The loss does not depend on the example."""


class _Pass(NamedTuple):
    """Results of the backward pass.

    Attributes:
      weights: the values of the variables ``Dataflow.read``, which do not depend on the example.
      met: for each use, its example-dependent inputs, with a leading example axis.
      cotangents: for each use, the cotangents of its outputs, with a leading example axis.
    """

    weights: dict[Any, jax.Array]
    met: list[list[jax.Array]]
    cotangents: list[list[jax.Array]]


def ghost_gradients(loss: Callable[..., tuple[jax.Array, PyTree]]) -> Callable[..., PerExample]:
    """``f(params, batch, keys)``, like ``vmap_gradients``, but it forms only those per-example gradients that it must.

    Args:
      loss: ``loss(params, example, key) -> (scalar, aux)`` for one example.

    Raises:
      ExampleIndependentLossError: when f is called, if the loss does not depend on the example.
      HiddenFlowError: when f is called, if the loss has effects.

    Formal guarantees:
      The norms are those of the gradients that ``sum_with`` weights and adds up, up to rounding in float32:
      ``dataflow`` finds every equation of the traced loss that combines a parameter with example data, and the
      gradient of a parameter with several such equations is formed for each example.
    """

    def per_example(params: PyTree, batch: PyTree, keys: jax.Array) -> PerExample:
        flow = take_apart(loss, params, first_of((batch, keys)))
        if not flow.depends:
            raise ExampleIndependentLossError(
                "the loss does not depend on the example, so that there is nothing to clip; method='vmap' gives every "
                "example the same gradient."
            )
        leaves, tree = jax.tree.flatten(params)
        outputs, done = _run(flow, leaves, jax.tree.leaves((batch, keys)), keys.shape[0])
        losses, aux = jax.tree.unflatten(flow.tree, outputs)
        parts = [_component(component, flow.uses, done, leaves) for component in flow.components]

        def of_leaves(initial: list[jax.Array], of_parts: Sequence[Sequence[jax.Array]]) -> PyTree:
            """The components' values at the leaves that reach the loss, and the initial values at the other leaves."""
            for component, some in zip(flow.components, of_parts, strict=True):
                for i, value in zip(component.leaves, some, strict=True):
                    initial[i] = value
            return jax.tree.unflatten(tree, initial)

        def sum_with(weights: PyTree, keep: jax.Array) -> PyTree:
            factors = jax.tree.leaves(weights)
            zeros = [jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)) for p in leaves]
            pairs = zip(flow.components, parts, strict=True)
            return of_leaves(zeros, [part.sum_with([factors[i] for i in c.leaves], keep) for c, part in pairs])

        squares = of_leaves([jnp.zeros(keys.shape[0])] * len(leaves), [part.squared_norms for part in parts])
        return PerExample(losses, aux, squares, sum_with)

    return per_example


def _run(flow: Dataflow, leaves: list[jax.Array], batch: list[jax.Array], size: int) -> tuple[list[jax.Array], _Pass]:
    weights = flow.weights_side(*leaves)

    def run(addends: list[list[jax.Array]]) -> tuple[jax.Array, Any]:
        outputs, met = jax.vmap(flow.example_side, in_axes=(None, 0, 0))(weights, batch, addends)
        return outputs[0], (outputs, met)

    nothing = [[jnp.zeros((size, *shape), dtype) for shape, dtype in m.outputs_like] for m in flow.uses]
    nothing = varying_like(nothing, batch)
    losses, pull, (outputs, met) = jax.vjp(run, nothing, has_aux=True)
    (cotangents,) = pull(jnp.ones_like(losses))
    met, cotangents = round_once((met, cotangents))
    return outputs, _Pass(dict(zip(flow.read, weights, strict=True)), met, cotangents)


class _Part(NamedTuple):
    """Squared norms and weighted sums of the gradients of one component's leaves; see ``PerExample``."""

    squared_norms: list[jax.Array]
    sum_with: Callable[[list[jax.Array], jax.Array], Sequence[jax.Array]]


def _component(component: Component, uses: Sequence[ParamUse], done: _Pass, leaves: list[jax.Array]) -> _Part:
    own = [leaves[i] for i in component.leaves]
    if component.rearranged and len(component.uses) == 1:
        (at,) = component.uses
        use, met, cotangents = uses[at], done.met[at], done.cotangents[at]
        # In float32 throughout: the sum of clipped gradients must not be rounded to a leaf's half precision.
        weight, pull = jax.vjp(component.to_weights, own[0].astype(jnp.promote_types(own[0].dtype, jnp.float32)))

        def to_leaf(total: jax.Array) -> tuple[jax.Array, ...]:
            return pull([total.astype(weight[0].dtype)])  # with jax_enable_x64 the sum is a float64

        if is_outer_product(use):
            return _outer_product(use, met, cotangents, done.weights, to_leaf)
        if conv := conv_parameters(use):
            return _convolution(conv, met[0], cotangents[0], to_leaf)
        if is_matrix_product(use):
            return _matrix(use, met[0], cotangents[0], to_leaf)

    values, pull = jax.vjp(component.to_weights, *own)

    def gradients(met: list[list[jax.Array]], cotangents: list[list[jax.Array]]) -> tuple[jax.Array, ...]:
        """The gradients of one example with respect to the component's leaves."""
        sums = {v: jnp.zeros_like(done.weights[v]) for v in component.weights}
        for i, m, d in zip(component.uses, met, cotangents, strict=True):
            for v, g in weight_gradients(uses[i], m, d, done.weights).items():
                sums[v] = sums[v] + g
        return pull([g.astype(x.dtype) for g, x in zip(sums.values(), values, strict=True)])

    each = jax.vmap(gradients)(*([xs[i] for i in component.uses] for xs in (done.met, done.cotangents)))
    each = round_once(each)
    return _Part(
        [squared_norm(g) for g in each],
        lambda weights, keep: [masked_sum(w, keep, g) for w, g in zip(weights, each, strict=True)],
    )


# The following functions are ``_component`` for a component with one use, an outer product, a convolution or a matrix,
# whose gradients need not be formed by automatic differentiation. ``to_leaf`` maps the gradient of the weight to the
# leaf's.
def _outer_product(
    use: ParamUse,
    met: list[jax.Array],
    cotangents: list[jax.Array],
    weights: dict[Any, Any],
    to_leaf: Callable[..., Any],
) -> _Part:
    norms = jax.vmap(lambda met, d: outer_product_norm(use, met, d))(met, cotangents)

    def by_one_product(factors: list[jax.Array], keep: jax.Array) -> Sequence[jax.Array]:
        def rows(x: jax.Array, like: jax.Array) -> jax.Array:
            return x.reshape((-1,) + (1,) * (like.ndim - 1))

        def kept(x: jax.Array) -> jax.Array:
            return jnp.where(rows(keep, x), x, jnp.zeros_like(x))

        (d,) = cotangents
        kept_d = wide(kept(d))
        share = kept_d * rows(factors[0].astype(kept_d.dtype), d)  # with jax_enable_x64 factors are float64
        numbers = [kept(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x for x in met]
        some = functools.partial(outer_product_sum, use, weights=weights)
        return to_leaf(sum_in_blocks(lambda block: some(*block), (numbers, [share])))

    return _Part([jnp.square(norms)], by_one_product)


def _convolution(conv: ConvParameters, x: jax.Array, d: jax.Array, to_leaf: Callable[..., Any]) -> _Part:
    matrices = jax.vmap(lambda x, d: kernel_matrices(conv, x, d))(x, d)
    return _Part(
        [squared_norm(matrices)],
        lambda weights, keep: to_leaf(as_weights(conv, masked_sum(weights[0], keep, matrices))),
    )


def _matrix(use: ParamUse, x: jax.Array, d: jax.Array, to_leaf: Callable[..., Any]) -> _Part:
    gradients = jax.vmap(lambda x, d: product_gradient(use, x, d))(x, d)
    return _Part(
        [squared_norm(gradients)],
        lambda weights, keep: to_leaf(as_matrix(use, masked_sum(weights[0], keep, gradients))),
    )


def clipping_plan(
    loss: Callable[..., tuple[jax.Array, PyTree]], params: PyTree, example: PyTree, key: jax.Array
) -> dict[str, str]:
    """How ``method="ghost"`` computes the norms of each parameter's per-example gradients.

    Args:
      loss: ``loss(params, example, key) -> (scalar, aux)`` for one example.
      params: the parameters; for this and the next two arguments, shapes and dtypes are enough.
      example: one example, without a batch axis.
      key: one PRNG key.

    Returns:
      A dictionary from the path of each parameter to one of these:
      ``"outer product"``: its per-example gradients are not formed.
      ``"patches"``: they are formed by a product of the patches of a convolution.
      ``"vectors"``: they are formed by a product of the vectors of an example, such as tokens, and their cotangents.
      ``"formed: ..."``: they are formed as by ``vmap``; the primitives of the uses (``dataflow``) are named.
      ``"unused"``: the parameter does not reach the loss.

    Raises:
      HiddenFlowError: the loss has effects.
    """
    flow = take_apart(loss, params, (example, key))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    plan = dict.fromkeys(paths, "unused")
    for component in flow.components:
        names = [flow.uses[i].equation.primitive.name for i in component.uses]
        first = flow.uses[component.uses[0]]
        how = "formed: " + ", ".join(names)
        if component.rearranged and len(names) == 1:
            how = "vectors" if is_matrix_product(first) else how
            how = "outer product" if is_outer_product(first) else "patches" if conv_parameters(first) else how
        plan |= {paths[i]: how for i in component.leaves}
    return plan
