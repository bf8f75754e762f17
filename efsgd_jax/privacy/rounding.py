"""What rounding adds to the length of a clipped sum, bounded, and the sums for which the bound holds.

The theorem wants ``|fl(S) - fl(S')| <= C`` for batches that differ in one row: c_i in S, zeros in S'. In floating point
a row that is clipped to C is a little longer, and one more row changes how the others are rounded. So rows are clipped
to ``C / (1 + margin)``, with a margin that covers both whatever the numbers are. It is small because sums are made in a
way that keeps it small: at most ``ROWS`` rows are added up in an unknown order, and such blocks, of which one
only can differ, are added up with compensation.

With u the unit roundoff (2^-24 in float32), B rows in the batch and r = min(B, ROWS)::

    a row's norm     is wrong by    (min(d, 256) ceil(log_256 d) + leaves + 16) u, relatively, of d elements
    a block of rows  differs by     2 (r + 12) r u C  more than C; 8 u of it for products (six passes on a TPU)
    the batch        differs by     12 B u C  more: rounded after its microbatches, after all of them, after its devices
                                    and three times by the transform; 2 u is each rounding's, on both sides

Arithmetic: sums and products of float32 (or wider) that round to nearest or to a neighbour of it, in an order that
depends on shapes only; no row is read for another row's gradient.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.varying import zeros_like

PyTree = Any
# Rows that are added up at one time, in whatever order the backend likes.
ROWS = 128
# Elements of which squares are added up at one time.
ELEMENTS = 256
# Above this a margin would cost more than it is worth: half a million rows.
MAX_MARGIN = 0.2


def margin(params: PyTree, rows: int) -> float:
    """The relative margin for a clipped sum; 0 for no rows. Microbatches and devices do not change it.

    Args:
      params: the parameters, or gradients of one example; shapes and dtypes.
      rows: B, with padding.

    Raises:
      ValueError: above ``MAX_MARGIN``.
    """
    leaves = [x for x in jax.tree.leaves(params) if math.prod(x.shape)]
    if not leaves or not rows:
        return 0.0
    u = max(float(jnp.finfo(jnp.promote_types(x.dtype, jnp.float32)).eps) for x in leaves) / 2
    d, r = max(math.prod(x.shape) for x in leaves), min(rows, ROWS)
    levels = max(1, math.ceil(math.log(d, ELEMENTS)))
    norms = min(d, ELEMENTS) * levels + len(leaves) + 16
    result = (norms + 2 * (r + 12) * r + 12 * rows) * u + 4 * rows**3 * u**2  # the last of compensated sums
    if result > MAX_MARGIN:
        raise ValueError(
            f"a clipped sum of {rows} rows may move by {100 * result:.0f}% more than its clip norm through the "
            "rounding of float32 sums; use smaller batches."
        )
    return result


def two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``a + b`` rounded, and what rounding took away, exactly (Møller, 1965; Knuth, 1969)."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


def compensated(sums: PyTree, errors: PyTree, more: PyTree) -> tuple[PyTree, PyTree]:
    """``sums + errors + more``, as a sum and the error of it so far."""
    leaves, structure = jax.tree.flatten(sums)
    pairs = [two_sum(s, x) for s, x in zip(leaves, jax.tree.leaves(more), strict=True)]
    added = [e + new for e, (_, new) in zip(jax.tree.leaves(errors), pairs, strict=True)]
    return jax.tree.unflatten(structure, [s for s, _ in pairs]), jax.tree.unflatten(structure, added)


def sum_in_blocks(sum_rows: Callable[..., PyTree], arrays: PyTree) -> PyTree:
    """``sum_rows(arrays)`` of arrays ``[m, ...]``, of at most ``ROWS`` rows at a time.

    Args:
      sum_rows: from arrays ``[r, ...]`` to sums over their rows; rows of zeros (False) add nothing.
      arrays: pytree of arrays.
    """
    (rows, *_) = (x.shape[0] for x in jax.tree.leaves(arrays))
    if rows <= ROWS:
        return sum_rows(arrays)
    count = -(-rows // ROWS)

    def split(x: jax.Array) -> jax.Array:
        padding = [(0, count * ROWS - rows)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(count, ROWS, *x.shape[1:])

    def add(carry: tuple[PyTree, PyTree], block: PyTree) -> tuple[tuple[PyTree, PyTree], None]:
        return compensated(*carry, sum_rows(block)), None

    blocks = jax.tree.map(split, arrays)
    like = jax.eval_shape(sum_rows, jax.tree.map(lambda x: x[0], blocks))
    zeros = zeros_like(like)
    (sums, errors), _ = jax.lax.scan(add, (zeros, zeros), blocks)
    return jax.tree.map(jnp.add, sums, errors)


def sum_of_squares(x: jax.Array) -> jax.Array:
    """Over the last axis, in float32 or wider; at most ``ELEMENTS`` terms at one time, whatever the backend does."""
    squares = jnp.square(wide(x))
    while squares.shape[-1] > ELEMENTS:
        count = -(-squares.shape[-1] // ELEMENTS)
        padding = [(0, 0)] * (squares.ndim - 1) + [(0, count * ELEMENTS - squares.shape[-1])]
        parts = jnp.pad(squares, padding).reshape(*squares.shape[:-1], count, ELEMENTS)
        # Without the barrier XLA makes one sum of two.
        squares = jax.lax.optimization_barrier(jnp.sum(parts, axis=-1))
    return jnp.sum(squares, axis=-1)


def wide(x: jax.Array) -> jax.Array:
    """In float32 or wider; whole numbers as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def round_once(tree: PyTree) -> PyTree:
    """Half-precision numbers, rounded now: XLA may compute the same number twice, once with and once without rounding,
    and the norm would not be that of what is added up."""

    def one(x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(x) if x.dtype.itemsize < 4 and jnp.issubdtype(x.dtype, jnp.inexact) else x

    return jax.tree.map(one, tree)
