"""Values inside of ``jax.shard_map``: which differ from device to device."""

from typing import Any

import jax

PyTree = Any


def varying_like(tree: PyTree, other: PyTree) -> PyTree:
    """``tree``, as values that may differ on every device on which those of ``other`` do; the numbers are the same.

    Inside of ``jax.shard_map`` (with its default check) a gradient with respect to a value that is the same on all
    devices is summed over the devices by JAX, that is before it is clipped: the gradient of one row would hold rows of
    all devices. Nothing is summed for values that may differ.
    """
    axes = frozenset[Any]().union(*(_axes(x) for x in jax.tree.leaves(other)))

    def one(x: Any) -> Any:
        missing = tuple(axes - _axes(x))
        if not missing:
            return x
        if hasattr(jax.lax, "pcast"):
            return jax.lax.pcast(x, missing, to="varying")
        return jax.lax.pvary(x, missing)  # JAX below 0.9

    return jax.tree.map(one, tree)


def _axes(x: Any) -> frozenset[Any]:
    return frozenset(getattr(jax.typeof(x), "vma", None) or ())
