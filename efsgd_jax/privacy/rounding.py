"""A bound on how much rounding adds to the sensitivity of a clipped sum, and the sums for which the bound holds.

The sensitivity proof needs ``|fl(S) - fl(S')| <= C`` for two batches that differ in one row, which is c_i in S and
zeros in S'. In floating point the norm of a row that is clipped to C can slightly exceed C, and one more row changes
how the other rows are rounded. Therefore rows are clipped to ``C / (1 + margin)``, with a margin that covers both
errors for all inputs. The margin is small because of how sums are computed: at most ``ROWS`` rows (a block) are added
in an unknown order, and the blocks are added with compensated summation. Only one block can differ between S and S'.

With u the unit roundoff (2^-24 in float32), B rows in the batch, r = min(B, ROWS) and d elements in the largest leaf,
the margin is the sum of these terms, each divided by C, and of ``4 B^3 u^2`` for the compensated sums::

    error of a row's norm:                           (min(d, 256) ceil(log_256 d) + leaves + 16) u C
    excess over C of the difference of a block:      2 (r + 12) r u C
                                                     (8 u of the 12 u are for products: six passes on a TPU)
    additional difference of the whole batch:        12 B u C
                                                     (6 roundings of 2 u each, which is u for each of S and S': after
                                                     each microbatch, after all of them, after the sum over devices,
                                                     and three in the optax transform)

Assumed arithmetic: sums and products in float32 (or wider) round to nearest or to a neighbour of it, in an order that
depends on shapes only; no row is read for another row's gradient.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.varying import zeros_like

PyTree = Any
# Largest number of rows in one reduction, whose order of summation is up to the backend.
ROWS = 128
# Largest number of squares in one reduction.
ELEMENTS = 256
# Largest margin that is accepted; in float32 it is reached at about 23,000 rows.
MAX_MARGIN = 0.2


def margin(params: PyTree, rows: int) -> float:
    """The relative margin by which rows are clipped below the clip norm; it covers the rounding of a clipped sum.

    It does not depend on how the batch is divided into microbatches or among devices.

    Args:
      params: the parameters, or the gradients of one example; only shapes and dtypes are read.
      rows: B, the number of rows of the batch, including padding.

    Returns:
      The margin; 0 if there are no rows or no parameters.

    Raises:
      ValueError: the margin would be above ``MAX_MARGIN``.
    """
    leaves = [x for x in jax.tree.leaves(params) if math.prod(x.shape)]
    if not leaves or not rows:
        return 0.0
    u = max(float(jnp.finfo(jnp.promote_types(x.dtype, jnp.float32)).eps) for x in leaves) / 2
    d, r = max(math.prod(x.shape) for x in leaves), min(rows, ROWS)
    levels = max(1, math.ceil(math.log(d, ELEMENTS)))
    norms = min(d, ELEMENTS) * levels + len(leaves) + 16
    result = (norms + 2 * (r + 12) * r + 12 * rows) * u + 4 * rows**3 * u**2  # the last term: compensated sums
    if result > MAX_MARGIN:
        raise ValueError(
            f"one row may change a clipped sum of {rows} rows by {100 * result:.0f}% more than the clip norm, through "
            "the rounding of float32 sums; use smaller batches."
        )
    return result


def two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``a + b`` rounded, and the exact rounding error ``a + b - fl(a + b)`` (Møller, 1965; Knuth, 1969)."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


def compensated(sums: PyTree, errors: PyTree, more: PyTree) -> tuple[PyTree, PyTree]:
    """One step of compensated summation: adds ``more``, and returns the rounded sums and their accumulated errors."""
    leaves, structure = jax.tree.flatten(sums)
    pairs = [two_sum(s, x) for s, x in zip(leaves, jax.tree.leaves(more), strict=True)]
    added = [e + new for e, (_, new) in zip(jax.tree.leaves(errors), pairs, strict=True)]
    return jax.tree.unflatten(structure, [s for s, _ in pairs]), jax.tree.unflatten(structure, added)


def sum_in_blocks(sum_rows: Callable[..., PyTree], arrays: PyTree) -> PyTree:
    """``sum_rows(arrays)``, computed in blocks of at most ``ROWS`` rows, whose sums are added with compensation.

    Args:
      sum_rows: function from arrays ``[r, ...]`` to sums over their rows; rows of zeros (of False in
        boolean arrays) must add nothing.
      arrays: pytree of arrays ``[m, ...]``.
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
    """Sum of squares over the last axis, in float32 or wider.

    No single reduction has more than ``ELEMENTS`` terms, so that the bound on the rounding error holds for any order
    of summation.
    """
    squares = jnp.square(wide(x))
    while squares.shape[-1] > ELEMENTS:
        count = -(-squares.shape[-1] // ELEMENTS)
        padding = [(0, 0)] * (squares.ndim - 1) + [(0, count * ELEMENTS - squares.shape[-1])]
        parts = jnp.pad(squares, padding).reshape(*squares.shape[:-1], count, ELEMENTS)
        # Without the barrier XLA could merge the two reductions into one.
        squares = jax.lax.optimization_barrier(jnp.sum(parts, axis=-1))
    return jnp.sum(squares, axis=-1)


def wide(x: jax.Array) -> jax.Array:
    """``x`` in float32 or wider; arrays of integers or booleans are returned unchanged."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def round_once(tree: PyTree) -> PyTree:
    """``tree``, with a barrier that makes XLA round half-precision leaves at this point; other leaves are unchanged.

    Without it XLA may compute the same value twice, once with and once without the rounding, and the norm would then
    not be that of the gradient that is added up.
    """

    def one(x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(x) if x.dtype.itemsize < 4 and jnp.issubdtype(x.dtype, jnp.inexact) else x

    return jax.tree.map(one, tree)
