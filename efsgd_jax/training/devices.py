"""All devices of a run, of one process or of several: one axis over which batches are distributed."""

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.devices import DATA

PyTree = Any


def join_processes() -> None:
    """Makes this process one of several; before anything else is done with JAX.

    Raises:
      UserError: they do not find each other.
    """
    count, this = (os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    try:
        jax.distributed.initialize(
            num_processes=int(count) if count else None,
            process_id=int(this) if this else None,
            shutdown_timeout_seconds=60,  # that the others are waited for if one of them fails
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {' '.join(str(error).split())[:300]}; set JAX_COORDINATOR_ADDRESS=HOST:PORT and "
            "JAX_NUM_PROCESSES in all processes, and JAX_PROCESS_ID in each"
        ) from error


def data_mesh() -> Mesh | None:
    """Every device of every process, on an axis ``data``; None if there is only one."""
    devices = jax.devices()
    return Mesh(np.array(devices), (DATA,)) if len(devices) > 1 else None


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """The same on every device; in every process ``tree`` must be the same already."""
    if mesh is None:
        return jax.tree.map(jax.numpy.asarray, tree)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: typed(jax.device_put(plain(x), everywhere), x), tree)


def from_first(tree: PyTree) -> PyTree:
    """What the first process has, in all of them."""
    if jax.process_count() == 1:
        return tree
    values = multihost_utils.broadcast_one_to_all(jax.tree.map(plain, tree))
    return jax.tree.map(lambda new, old: typed(jax.numpy.asarray(new), old), values, tree)


def to_host(tree: PyTree) -> PyTree:
    """NumPy arrays of what is the same on every device, and keys on the process's own device."""
    return jax.tree.map(lambda x: typed(jax.numpy.asarray(plain(x)), x) if _is_key(x) else np.asarray(x), tree)


def is_first() -> bool:
    """Whether this process keeps the run's files: one does."""
    return jax.process_index() == 0


def plain(x: Any) -> np.ndarray:
    """A leaf of a state as NumPy has it: a key as its words."""
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)


def typed(x: jax.Array, like: Any) -> jax.Array:
    """A key again, if ``like`` is one."""
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like)) if _is_key(like) else x


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
