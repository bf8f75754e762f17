"""Full-batch sums on several devices: each adds its part of the records, and integers are added over the devices."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from efsgd_jax.privacy.devices import DATA
from efsgd_jax.privacy.noise import LIMB_BITS, Integers
from efsgd_jax.privacy.stored import number_of, sum_over_chunks

PyTree = Any
HALF_BITS = LIMB_BITS // 2
HALF = 2**HALF_BITS - 1


def sum_over_devices(
    f: Callable[[PyTree, jax.Array], PyTree], records: PyTree, add: Callable[[PyTree, PyTree], PyTree], mesh: Mesh
) -> PyTree:
    """``sum_over_chunks`` of parts of the records, one for each device of the axis ``data``, added over the devices.

    Args:
      f: as in ``sum_over_chunks``.
      records: the same; arrays in memory are on every device, and of records on disk each device reads its part.
      add: the same.
      mesh: the devices.

    Formal guarantees:
      ``Integers`` are added exactly, so that the sum does not depend on how records are divided. What one record adds
      is computed from this record alone; another number of devices may round it otherwise, which does not change how
      long it is at most. Other numbers, such as private metrics, are added in floating point.
    """
    (size,) = number_of(records)
    devices = mesh.shape[DATA]
    part = -(-size // devices)

    def mine(records: PyTree) -> PyTree:
        first = jax.lax.axis_index(DATA) * part
        return over_devices(sum_over_chunks(f, records, add, first=first, number=part))

    return jax.shard_map(mine, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)(records)


def over_devices(tree: PyTree) -> PyTree:
    """The sums of all leaves over the axis ``data``; ``Integers`` stay in their normal form."""
    return jax.tree.map(
        lambda x: _exactly(x) if isinstance(x, Integers) else jax.lax.psum(x, DATA),
        tree,
        is_leaf=lambda x: isinstance(x, Integers),
    )


def _exactly(x: Integers) -> Integers:
    # The low parts of 2^7 devices would overflow an int32. Their halves do not, up to 2^19 devices.
    high, upper, lower = jax.lax.psum((x.high, x.low >> HALF_BITS, x.low & HALF), DATA)
    upper = upper + (lower >> HALF_BITS)
    return Integers(high + (upper >> HALF_BITS), ((upper & HALF) << HALF_BITS) + (lower & HALF))
