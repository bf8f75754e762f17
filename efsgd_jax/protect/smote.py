"""PrivateSMOTE (arXiv 2212.00484): each row of a table is replaced by one between it and a row like it.

The published code releases rows that are not at risk as they are, and returns the true value wherever its noise falls
out of range. Here every row is replaced, and values are reflected at the ends of their declared range. The strength of
the noise is a scale, and not a privacy parameter: it follows the distance of two private rows, so that no bound holds
for the influence of one of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.errors import UserError

# Where a row and its neighbour agree, the noise follows the column's standard deviation, but at least this part of its
# range; no noise is smaller than the second number, and no cell ends nearer to its old value than half of it.
LEAST_SPREAD, LEAST_MOVE = 0.01, 1e-3
# Noise of the first scale is far below the least move, and of the second far wider than most distances of rows. Far
# beyond them the noise, or the likelihood in the report, overflows.
LEAST_SCALE, MOST_SCALE = 1e-6, 1e4
# Labels that a message names.
NAMED = 5


class Near(NamedTuple):
    """For each row, others of its label that are near to it.

    Attributes:
      rows: int64 ``[N, K]``; the first ``counts[i]`` entries of row i are its nearest rows, the others mean nothing.
      counts: int64 ``[N]``, from 1 to K: as many as were asked for, or all others of the label if they are fewer.
    """

    rows: np.ndarray
    counts: np.ndarray


class Moved(NamedTuple):
    """Replaced rows in the order in which they are written.

    Attributes:
      cells: float64 ``[N, D]`` in [0, 1].
      labels: int ``[N]``.
      origin: int64 ``[N]``, the original row that each was made of. It is a secret: attacks are scored by it.
    """

    cells: np.ndarray
    labels: np.ndarray
    origin: np.ndarray


def smote(
    cells: np.ndarray, labels: np.ndarray, *, noise_scale: float = 1.0, neighbours: int = 5, seed: int = 0
) -> np.ndarray:
    """A row for each row: ``x + (x' - x) * Laplace(noise_scale)`` in each cell, with x' a random near row of its class.

    Args:
      cells: float ``[N, D]`` in [0, 1].
      labels: int ``[N]``; a row is only moved towards rows of its own label. They are kept.
      noise_scale: scale of the Laplace noise, relative to the distance of the two rows in this cell; from 1e-6 to
        10000.
      neighbours: among how many of the nearest rows x' is chosen, at least 1; among all others of its label if these
        are fewer.
      seed: seed of the choices and of the noise, at least 0; whoever knows it can undo the noise.

    Returns:
      float64 ``[N, D]`` in [0, 1], in the order of the rows; no cell has its old value. Whoever has the table links
      rows in this order by their position: write them ``in_random_order``.

    Raises:
      UserError: an option or a cell is out of range, cells and labels are not of the same rows, or a label has one row
        only, which has no neighbour.

    Formal guarantees:
      None. See the report of attacks (``smote_attacks``).

    Examples:
      >>> cells = np.array([[0.2, 0.5], [0.4, 0.5]])
      >>> moved = smote(cells, np.array([0, 0]), neighbours=1)
      >>> moved.shape, bool((moved != cells).all())
      ((2, 2), True)
    """
    check_options(noise_scale, neighbours, seed)
    check_rows(cells, labels)
    rng = np.random.default_rng(seed)
    near = near_rows(cells, labels, neighbours)
    other = cells[near.rows[np.arange(len(cells)), rng.integers(near.counts)]]
    move = step_between(cells, other, spread_of(cells)) * rng.laplace(scale=noise_scale, size=cells.shape)
    move = np.where(np.abs(move) < LEAST_MOVE, np.where(move < 0, -LEAST_MOVE, LEAST_MOVE), move)
    moved = reflected(cells + move)
    # A move by nearly twice the distance to an end is reflected onto the cell itself.
    return np.where(np.abs(moved - cells) < LEAST_MOVE / 2, inwards(cells), moved)


def in_random_order(cells: np.ndarray, labels: np.ndarray, seed: int) -> Moved:
    """Replaced rows ``[N, D]`` and their labels ``[N]`` in a random order; whoever knows the seed undoes it.

    Formal guarantees:
      None. The order itself says nothing of the rows as long as the seed is secret and used for nothing else.
    """
    # Two numbers, so that it is not the stream of numbers that ``smote`` draws its noise from with the same seed.
    origin = np.random.default_rng([1, seed]).permutation(len(cells))
    return Moved(cells[origin], labels[origin], origin)


def near_rows(cells: np.ndarray, labels: np.ndarray, neighbours: int) -> Near:
    """The nearest other rows of the same label, for each row; fewer where a label has fewer other rows."""
    check_labels(labels)
    counts = np.bincount(labels)
    used = np.minimum(neighbours, counts - 1)
    found = np.zeros((len(cells), used.max(initial=1)), np.int64)
    for label in np.flatnonzero(counts):
        (rows,), k = np.nonzero(labels == label), used[label]
        near = NearestNeighbors(n_neighbors=k + 1).fit(cells[rows]).kneighbors(cells[rows], return_distance=False)
        # A row is its own nearest one, unless another one is equal to it: then it may be any of the first k + 1.
        own = near == np.arange(len(rows))[:, None]
        own[~own.any(axis=1), -1] = True
        found[rows, :k] = rows[near[~own].reshape(len(rows), k)]
    return Near(found, used[labels])


def spread_of(cells: np.ndarray) -> np.ndarray:
    """The standard deviation ``[D]`` of each column, and at least ``LEAST_SPREAD``."""
    return np.maximum(cells.std(axis=0), LEAST_SPREAD)


def step_between(cells: np.ndarray, other: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """By what the noise of a cell is multiplied: its distance to the other row, or the spread where they agree."""
    return np.where(other == cells, spread, other - cells)


def inwards(x: np.ndarray) -> np.ndarray:
    """Values of [0, 1] that are moved by ``LEAST_MOVE`` towards the middle, where no end reflects them back."""
    return x + np.where(x < 0.5, LEAST_MOVE, -LEAST_MOVE)


def reflected(x: np.ndarray) -> np.ndarray:
    """Values brought into [0, 1] by reflecting them at 0 and 1, as often as needed.

    Examples:
      >>> reflected(np.array([-0.25, 1.25, 2.5])).tolist()
      [0.25, 0.75, 0.5]
    """
    return 1.0 - np.abs(np.mod(x, 2.0) - 1.0)


def check_rows(cells: np.ndarray, labels: np.ndarray) -> None:
    """Raises ``UserError`` for cells outside of [0, 1], NaN among them, or labels that do not belong to the rows."""
    if cells.ndim != 2 or labels.shape != cells.shape[:1]:
        raise UserError(f"cells have shape {cells.shape} and labels {labels.shape}; they are [N, D] and [N]")
    if not ((cells >= 0) & (cells <= 1)).all():
        raise UserError("a cell is not in 0..1; scale the columns by their declared ranges first")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise UserError(
            f"labels have dtype {labels.dtype}, from {labels.min(initial=0)}; they are integers of at least 0"
        )


def check_labels(labels: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Raises ``UserError`` for labels with one row only, by their ``names``, or by their numbers without any."""
    alone = np.flatnonzero(np.bincount(labels) == 1)
    if len(alone):
        some = ", ".join(str(i) if names is None else repr(names[i][:40]) for i in alone[:NAMED])
        more = f" and {len(alone) - NAMED} others" if len(alone) > NAMED else ""
        raise UserError(
            f"these labels have one row only, which would have no row to move towards: {some}{more}; leave such rows "
            "out, or join the label with another"
        )


def check_options(noise_scale: float, neighbours: int, seed: int = 0) -> None:
    """Raises ``UserError`` for options out of range."""
    if not LEAST_SCALE <= noise_scale <= MOST_SCALE:  # NaN fails too
        raise UserError(f"noise_scale is {noise_scale}; it is a number from {LEAST_SCALE:g} to {MOST_SCALE:g}")
    if neighbours < 1:
        raise UserError(f"neighbours is {neighbours}; it is at least 1")
    if seed < 0:
        raise UserError(f"seed is {seed}; it is at least 0, or not given for a fresh one")
