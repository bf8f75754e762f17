"""Varying values inside of ``jax.shard_map``: those that JAX's types say may differ from device to device."""

from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any


def first_of(tree: PyTree) -> PyTree:
    """Shapes and dtypes of one row of arrays ``[B, ...]`` and, unless B is 0, its varying mesh axes."""

    def one(x: Any) -> Any:
        return jax.eval_shape(lambda y: y[0], x) if x.shape[0] else jax.ShapeDtypeStruct(x.shape[1:], x.dtype)

    return jax.tree.map(one, tree)


def zeros_like(tree: PyTree) -> PyTree:
    """Zeros with the shapes and dtypes of ``tree``, a result of ``jax.eval_shape``, and the same varying mesh axes."""
    return jax.tree.map(lambda x: _varying(jnp.zeros(x.shape, x.dtype), _axes(x)), tree)


def varying_like(tree: PyTree, other: PyTree) -> PyTree:
    """``tree`` with the same numbers, but marked as varying along every mesh axis along which ``other`` varies.

    Inside of ``jax.shard_map`` (with its default check), if a value is the same on all devices, JAX sums the gradient
    with respect to it over the devices. This happens before the gradient is clipped, so that the gradient of one row
    would include rows of all devices. Gradients with respect to varying values are not summed.
    """
    axes = axes_of(other)
    return jax.tree.map(lambda x: _varying(x, axes), tree)


def axes_of(tree: PyTree) -> frozenset[Any]:
    """The axes of the mesh along which any of the values may vary."""
    return frozenset[Any]().union(*(_axes(x) for x in jax.tree.leaves(tree)))


def _varying(x: Any, axes: frozenset[Any]) -> Any:
    missing = tuple(axes - _axes(x))
    if not missing:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, missing, to="varying")
    return jax.lax.pvary(x, missing)  # type: ignore[attr-defined]  # JAX below 0.9


def check_not_summed(per_example_grads: PyTree) -> None:
    """Raises ``ValueError`` inside of ``jax.shard_map`` for gradients that do not vary along one of its axes.

    JAX may have summed them over the devices of that axis before they could be clipped; see ``varying_like``. Their
    types do not show whether it has, or whether the rows are the same on these devices: both are refused.
    """
    for axis in getattr(jax.sharding.get_abstract_mesh(), "manual_axes", ()):
        if axis not in _axes(jax.lax.axis_index(axis)):
            continue  # without shard_map's check JAX does not track varying values, and sums no gradients
        if any(axis not in _axes(g) for g in jax.tree.leaves(per_example_grads)):
            raise ValueError(
                f"inside of jax.shard_map these per-example gradients are the same on all devices of the axis "
                f"{axis!r}: JAX may have summed them over the devices before they could be clipped. Use clipped_grad, "
                f"or make the parameters vary: jax.lax.pcast(params, {axis!r}, to='varying')."
            )


def _axes(x: Any) -> frozenset[Any]:
    kind = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    # The attribute's name depends on the version of JAX.
    kind = getattr(kind, "mat", None) or getattr(kind, "manual_axis_type", None) or kind
    return frozenset(getattr(kind, "varying", None) or getattr(kind, "vma", None) or ())
