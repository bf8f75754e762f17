"""The devices of a run, in one process or in several: a mesh with one axis over which batches are split."""

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
    """Connects this process to the other processes of the run. Must be called before any other use of JAX.

    Raises:
      UserError: the processes cannot connect.
    """
    count, this = (os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    try:
        jax.distributed.initialize(
            num_processes=int(count) if count else None,
            process_id=int(this) if this else None,
            shutdown_timeout_seconds=60,  # how long to wait for the other processes if one of them fails
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {' '.join(str(error).split())[:300]}; set JAX_COORDINATOR_ADDRESS=HOST:PORT and "
            "JAX_NUM_PROCESSES in all processes, and JAX_PROCESS_ID in each"
        ) from error


def data_mesh() -> Mesh | None:
    """The mesh of all devices of all processes, with one axis ``data``; None if there is only one device."""
    devices = jax.devices()
    return Mesh(np.array(devices), (DATA,)) if len(devices) > 1 else None


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Copies ``tree`` to every device of the mesh. All processes must call this with the same values."""
    return place(tree, None if mesh is None else jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree))


def place(tree: PyTree, placed: PyTree | None) -> PyTree:
    """Moves ``tree`` to where ``layout`` says. All processes must call this with the same values."""
    if placed is None:
        return jax.tree.map(jax.numpy.asarray, tree)
    return jax.tree.map(lambda x, sharding: typed(jax.device_put(plain(x), sharding), x), tree, placed)


def from_first(tree: PyTree) -> PyTree:
    """Broadcasts the first process's values of ``tree`` to all processes, as NumPy arrays and PRNG keys."""
    if jax.process_count() == 1:
        return tree
    values = multihost_utils.broadcast_one_to_all(jax.tree.map(plain, tree))
    return jax.tree.map(lambda new, old: typed(np.asarray(new), old), values, tree)


def to_host(tree: PyTree) -> PyTree:
    """Copies a pytree of whole values to NumPy arrays; PRNG keys stay JAX arrays, on the process's own device.

    All processes must call this together, since each may have a part of an array only.
    """

    def whole(x: Any) -> Any:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return multihost_utils.process_allgather(x, tiled=True)
        return typed(jax.numpy.asarray(plain(x)), x) if _is_key(x) else np.asarray(x)

    return jax.tree.map(whole, tree)


def is_first() -> bool:
    """Whether this is the first process, which is the only one that writes the run's files."""
    return jax.process_index() == 0


def plain(x: Any) -> np.ndarray:
    """Converts a leaf of a state to a NumPy array; a PRNG key becomes its array of integers."""
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)


def zeros_on_host(like: PyTree, key: jax.Array) -> PyTree:
    """A pytree of the shapes and dtypes of ``like``: NumPy arrays of zeros, and copies of a PRNG key."""

    def of(x: Any) -> Any:
        return jax.numpy.broadcast_to(key, x.shape) if _is_key(x) else np.zeros(x.shape, x.dtype)

    return jax.tree.map(of, like)


def typed(x: Any, like: Any) -> Any:
    """The inverse of ``plain``: makes ``x`` a PRNG key if ``like`` is one."""
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like)) if _is_key(like) else x


def _is_key(x: Any) -> bool:
    return hasattr(x, "dtype") and jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
