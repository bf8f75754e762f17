"""The likelihood of a row that ``smote`` wrote, if it was made of a given row: what the strongest attack compares."""

from collections.abc import Callable, Iterable

import numpy as np

from efsgd_jax.protect.smote import LEAST_MOVE, inwards, reflected, spread_of, step_between

# Numbers that differ by less count as equal: a table that is written and read again has rounding errors.
SAME = 1e-9
# Density of what cannot occur; not 0, so that a rounding error in one cell does not rule out the true row.
NOTHING = 1e-300


def log_density(cells: np.ndarray, noise_scale: float) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """The log-likelihood of ``smote`` on the table ``cells`` ``[N, D]``.

    Returns:
      Function of protected rows ``[B, 1, D]``, of rows ``[n, D]`` they may be made of, and of a near row of each
      ``[n, D]``; it returns ``[B, n]``.
    """
    spread = spread_of(cells)

    def likelihood(seen: np.ndarray, rows: np.ndarray, other: np.ndarray) -> np.ndarray:
        scale = noise_scale * np.abs(step_between(rows, other, spread))
        return np.log(cell_density(seen, rows, scale)).sum(axis=-1)

    return likelihood


def cell_density(y: np.ndarray, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The density at which a cell x becomes y by Laplace noise of ``scale``, with reflection and the least move.

    A move leads to y if it is ``y - x`` or ``-y - x``, plus any multiple of 2. Moves of less than ``LEAST_MOVE`` do not
    occur; their probability lies on two points, where it counts as a density over the width in which numbers are equal.
    """
    away, across = np.abs(y - x), y + x
    again = 1 / -np.expm1(-2 / scale)  # the sum of exp(-2k / scale), for turns around both ends

    def laplace(distance: np.ndarray) -> np.ndarray:
        return np.where(distance > LEAST_MOVE - SAME, np.exp(-distance / scale), 0.0)

    direct = laplace(away) + np.exp(-away / scale) * (again - 1)
    # The first turn of a reflection may be a move of less than the least one too.
    ends = [laplace(t) + np.exp(-t / scale) * (again - 1) for t in (across, 2 - across)]
    density = (direct + np.exp((away - 2) / scale) * again + ends[0] + ends[1]) / (2 * scale)
    density = np.where(away < LEAST_MOVE / 2 - SAME, 0.0, density)

    small = -np.expm1(-LEAST_MOVE / scale) / 2  # the probability of each of the two least moves
    for move in (LEAST_MOVE, -LEAST_MOVE):
        density = density + np.where(np.abs(y - _settled(x, reflected(x + move))) < SAME, small / (2 * SAME), 0.0)
    # Longer moves that reflection brings back to x itself are replaced by one inwards.
    returned = LEAST_MOVE * (np.exp(-2 / scale) * again + (again - 1)) / scale
    for twice in (2 * x, 2 - 2 * x):  # the length of a move to an end and back
        least = np.maximum(np.maximum(twice - LEAST_MOVE / 2, twice / 2), LEAST_MOVE)
        most = np.maximum(twice + LEAST_MOVE / 2, least)
        returned = returned + (np.exp(-least / scale) - np.exp(-most / scale)) / 2
    density = density + np.where(np.abs(y - inwards(x)) < SAME, returned / (2 * SAME), 0.0)
    return np.maximum(density, NOTHING)


def log_sum(logs: Iterable[np.ndarray]) -> np.ndarray:
    """The logarithm of the sum of what ``logs`` are the logarithms of; arrays of one shape."""
    first, *others = logs
    for each in others:
        first = np.logaddexp(first, each)
    return first


def _settled(x: np.ndarray, moved: np.ndarray) -> np.ndarray:
    return np.where(np.abs(moved - x) < LEAST_MOVE / 2, inwards(x), moved)
