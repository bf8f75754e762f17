"""Where the numbers of a phase's state are on a mesh: copied to every device, or divided among them.

What is divided is what a device keeps from one step to the next: parameters, their average, and the moments of Adam
(as in ZeRO, arXiv 1910.02054, and FSDP, arXiv 2304.11277). To clip a gradient each device needs all parameters, which
the compiled step gathers for it. The addends of a sum and the noise are those of a state that is copied.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efsgd_jax.privacy.devices import DATA
from efsgd_jax.synthesizers.base import Phase

PyTree = Any
# Dividing an array of fewer numbers saves less memory than it costs messages.
SMALLEST = 2**14


def layout(phase: Phase, state: PyTree, mesh: Mesh | None, divide_above: int) -> PyTree | None:
    """The sharding of each leaf of the state of a phase; None without a mesh.

    Args:
      phase: the phase, which knows the parameters among its state.
      state: its state, or shapes and dtypes.
      mesh: a mesh with the axis ``data``, or None.
      divide_above: if there are more parameters than this, each array of the shape of a parameter is divided, along
        its longest side that the number of devices divides. Every device has a copy of the rest, of arrays under
        ``SMALLEST`` numbers, and of those without such a side.
    """
    if mesh is None:
        return None
    devices = mesh.shape[DATA]
    parameters = jax.tree.leaves(jax.eval_shape(phase.parameters or phase.release, state))
    few = sum(math.prod(x.shape) for x in parameters) <= divide_above
    shapes = set() if few else {x.shape for x in parameters if math.prod(x.shape) >= SMALLEST}

    def of(x: Any) -> NamedSharding:
        sides = [side for side in x.shape if side % devices == 0]
        if x.shape not in shapes or not sides:
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, PartitionSpec(*[None] * x.shape.index(max(sides)), DATA))

    return jax.tree.map(of, state)


def shardings_of(state: PyTree, mesh: Mesh | None) -> PyTree | None:
    """The shardings of a state that is on a mesh, so that a step leaves it where it was; None without a mesh."""
    return None if mesh is None else jax.tree.map(lambda x: x.sharding, state)


def bytes_of_each(state: PyTree, placed: PyTree | None) -> int:
    """Bytes of a state on one device. ``state`` may be shapes and dtypes; ``placed`` is from ``layout``."""

    def of(x: Any, sharding: NamedSharding | None = None) -> int:
        shape = x.shape if sharding is None else sharding.shard_shape(x.shape)
        return math.prod(shape) * int(x.dtype.itemsize)

    return sum(jax.tree.leaves(jax.tree.map(of, state, *([] if placed is None else [placed]))))
