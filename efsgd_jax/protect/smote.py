"""PrivateSMOTE (arXiv 2212.00484): each row of a table is replaced by one between it and a row like it.

The published code releases rows that are not at risk as they are, and returns the true value wherever its noise falls
out of range. Here every row is replaced, and values are reflected at the ends of their declared range. The strength of
the noise is a scale, and not a privacy parameter: it follows the distance of two private rows, so that no bound holds
for the influence of one of them.
"""

import math

import numpy as np
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.errors import UserError

# Where a row and its neighbour agree, the noise follows the column's standard deviation, but at least this part of its
# range; no cell is moved by less than the second number.
LEAST_SPREAD, LEAST_MOVE = 0.01, 1e-3


def smote(
    cells: np.ndarray, labels: np.ndarray, *, noise_scale: float = 1.0, neighbours: int = 5, seed: int = 0
) -> np.ndarray:
    """A row for each row: ``x + (x' - x) * Laplace(noise_scale)`` in each cell, with x' a random near row of its class.

    Args:
      cells: float ``[N, D]`` in [0, 1].
      labels: int ``[N]``; a row is only moved towards rows of its own label. They are kept.
      noise_scale: scale of the Laplace noise, relative to the distance of the two rows in this cell; above 0.
      neighbours: among how many of the nearest rows x' is chosen; at least 1.
      seed: seed of the choices and of the noise; whoever knows it can undo the noise.

    Returns:
      float64 ``[N, D]`` in [0, 1], in the order of the rows; no cell has its old value.

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
    check_options(noise_scale, neighbours)
    check_rows(cells, labels)
    rng = np.random.default_rng(seed)
    chosen = near_rows(cells, labels, neighbours)
    other = cells[chosen[np.arange(len(cells)), rng.integers(chosen.shape[1], size=len(cells))]]
    spread = np.maximum(cells.std(axis=0), LEAST_SPREAD)
    step = np.where(other == cells, spread, other - cells)
    move = step * rng.laplace(scale=noise_scale, size=cells.shape)
    move = np.where(np.abs(move) < LEAST_MOVE, np.where(move < 0, -LEAST_MOVE, LEAST_MOVE), move)
    moved = reflected(cells + move)
    # A move by nearly twice the distance to an end is reflected onto the cell itself.
    return np.where(np.abs(moved - cells) < LEAST_MOVE / 2, reflected(cells + LEAST_MOVE), moved)


def near_rows(cells: np.ndarray, labels: np.ndarray, neighbours: int) -> np.ndarray:
    """Indices ``[N, k]`` of the k nearest other rows of the same label; k is at most the smallest class less one."""
    counts = np.bincount(labels)
    if (counts == 1).any():
        raise UserError(
            "a label has one row only, which would have no row to move towards; leave it out, or join it with another"
        )
    k = min(neighbours, int(counts[counts > 0].min()) - 1)
    found = np.empty((len(cells), k), np.int64)
    for label in np.flatnonzero(counts):
        (rows,) = np.nonzero(labels == label)
        near = NearestNeighbors(n_neighbors=k + 1).fit(cells[rows]).kneighbors(cells[rows], return_distance=False)
        # A row is its own nearest one, unless another one is equal to it: then it may be any of the first k + 1.
        own = near == np.arange(len(rows))[:, None]
        own[~own.any(axis=1), -1] = True
        found[rows] = rows[near[~own].reshape(len(rows), k)]
    return found


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


def check_options(noise_scale: float, neighbours: int) -> None:
    """Raises ``UserError`` for options out of range."""
    if not (noise_scale > 0 and math.isfinite(noise_scale)):
        raise UserError(f"noise_scale is {noise_scale}; it is a number above 0")
    if neighbours < 1:
        raise UserError(f"neighbours is {neighbours}; it is at least 1")
