"""Records that stay on disk: a compiled step reads the rows that it needs, so that data need not fit into memory."""

import contextlib
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

PyTree = Any
# Threads that read rows at the same time: a disk serves many small reads together much faster than one by one.
READERS = 8
# Rows below this number of bytes in all are read by one thread.
FEW_BYTES = 2**20
# Bytes of the records that a full-batch release reads at a time.
CHUNK_BYTES = 64 * 2**20
# Where records come from does not change how what is computed from them is compiled, and so rounded.
_behind = jax.lax.optimization_barrier


@jax.tree_util.register_static
class Stored:
    """Records in arrays that are not loaded, usually memory-mapped files. JAX treats it as a constant without leaves.

    Args:
      arrays: pytree of NumPy arrays ``[M, ...]``.
      index: int ``[N, m]``: record i consists of the m rows ``index[i]``. None if record i is row i.

    Raises:
      ValueError: the arrays have different numbers of rows, or none, or ``index`` names rows that they do not have.

    Examples:
      >>> records = Stored(np.arange(10.0))
      >>> len(records), jax.jit(lambda rows: records.take(rows))(jnp.array([7, 2]))
      (10, Array([7., 2.], dtype=float32))
    """

    def __init__(self, arrays: PyTree, index: np.ndarray | None = None):
        sizes = {len(x) for x in jax.tree.leaves(arrays)}
        if len(sizes) != 1 or not min(sizes):
            raise ValueError(f"the arrays have {sorted(sizes)} rows; all have the same number, at least 1.")
        if index is not None and not (index.min() >= 0 and index.max() < min(sizes)):
            raise ValueError(f"index names rows {index.min()} to {index.max()} of {min(sizes)}.")
        self.arrays, self.index = arrays, index
        self._pool = ThreadPoolExecutor(READERS)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.arrays)[0] if self.index is None else self.index)

    def like(self, count: int) -> PyTree:
        """The shapes and dtypes of ``count`` records."""
        first = (count,) if self.index is None else (count, self.index.shape[1])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*first, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype)), self.arrays
        )

    def read(self, rows: np.ndarray) -> PyTree:
        """The records ``rows``, int ``[B]`` in ``0..N-1``, as NumPy arrays with a first axis B."""
        rows = np.asarray(rows)
        found = rows if self.index is None else self.index[rows].reshape(-1)
        like = self.like(len(rows))
        return jax.tree.map(lambda x, to: self._rows(x, found).reshape(to.shape).astype(to.dtype), self.arrays, like)

    def take(self, rows: jax.Array, mesh: Mesh | None = None) -> PyTree:
        """``read`` within a compiled function; with a mesh, on which ``rows`` is replicated, each device reads."""

        def call(rows: jax.Array) -> PyTree:
            return jax.pure_callback(self.read, self.like(len(rows)), rows)

        if mesh is not None:
            call = jax.shard_map(call, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
        return call(rows)

    def _rows(self, array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        read_ahead(array, rows)
        result = np.empty((len(rows), *array.shape[1:]), array.dtype)
        parts = READERS if result.nbytes > FEW_BYTES else 1

        def read(part: int) -> None:
            some = slice(len(rows) * part // parts, len(rows) * (part + 1) // parts)
            np.take(array, rows[some], axis=0, out=result[some], mode="clip")  # other modes read into a copy first

        list(self._pool.map(read, range(parts)))
        return result


def read_ahead(array: np.ndarray, rows: np.ndarray) -> None:
    """Asks the system to read rows of a memory-mapped array from the disk, all at the same time.

    Otherwise it would read each page when it is touched, with many of its neighbours, which a random row does not need
    (``benchmarks/cold_reads.py``). This is advice: nothing is returned, and without it rows are read later.
    """
    mapped: Any = getattr(array, "_mmap", None)
    if mapped is None or not hasattr(mmap, "MADV_WILLNEED") or not len(rows):
        return
    first = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data  # also of a part of a mapped array
    size = array.strides[0]
    ends = np.flatnonzero(np.diff(rows) != 1)
    for begin, last in zip(rows[np.r_[0, ends + 1]].tolist(), rows[np.r_[ends, len(rows) - 1]].tolist(), strict=True):
        start = (first + begin * size) // mmap.PAGESIZE * mmap.PAGESIZE
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_WILLNEED, start, first + (last + 1) * size - start)


def is_stored(records: PyTree) -> bool:
    """Whether the records, or those of ``Units``, stay on disk."""
    return any(isinstance(x, Stored) for x in jax.tree.leaves(records, is_leaf=lambda x: isinstance(x, Stored)))


def number_of(records: PyTree) -> set[int]:
    """The numbers of rows of all arrays; one number, N, unless arrays do not belong together."""
    return {len(leaf) for leaf in jax.tree.leaves(records, is_leaf=lambda x: isinstance(x, Stored))}


def rows_of(records: PyTree, rows: jax.Array, mesh: Mesh | None = None) -> PyTree:
    """The records ``rows``, int ``[B]``, of ``records``, whether they are in memory or on disk; see ``Stored.take``."""
    found = jax.tree.map(
        lambda x: x.take(rows, mesh) if isinstance(x, Stored) else x[rows],
        records,
        is_leaf=lambda x: isinstance(x, Stored),
    )
    return _behind(found)


def sum_over_chunks(
    f: Callable[[PyTree, jax.Array], PyTree],
    records: PyTree,
    add: Callable[[PyTree, PyTree], PyTree],
    first: jax.typing.ArrayLike = 0,
    number: int | None = None,
) -> PyTree:
    """``f(some, real)`` of chunks of records, added; memory holds what ``f`` computes of one chunk at a time.

    The chunks are the same for records in memory and on disk, so that rounding is the same, too.

    Args:
      f: function of n records and of ``real``, bool ``[n]``, False for repetitions that fill the last chunk.
      records: pytree of arrays ``[N, ...]``, ``Stored``, or ``Units`` of either.
      add: adds two results of ``f``.
      first: the first record to add.
      number: the number of records to add; those beyond the last are left out. None for all.
    """
    (size,) = number_of(records)
    part = size if number is None else number
    count = max(1, min(part, CHUNK_BYTES // _bytes_of_one(records)))
    if number is None and count == size:
        every = rows_of(records, jnp.arange(size)) if is_stored(records) else _behind(records)
        return _behind(f(every, jnp.ones(size, bool)))

    def chunk(start: jax.Array) -> PyTree:
        rows = first + start + jnp.arange(count)
        real = (start + jnp.arange(count) < part) & (rows < size)
        return f(rows_of(records, jnp.minimum(rows, size - 1)), real)

    starts = jnp.arange(count, part, count, dtype=jnp.int32)
    total, _ = jax.lax.scan(lambda sum_, start: (add(sum_, chunk(start)), None), chunk(jnp.int32(0)), starts)
    return _behind(total)


def _bytes_of_one(records: PyTree) -> int:
    one = jax.eval_shape(lambda: rows_of(records, jnp.zeros(1, jnp.int32)))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one))
