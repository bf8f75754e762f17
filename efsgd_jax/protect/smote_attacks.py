"""Attacks on rows that ``smote`` replaced, by an attacker who has the original table and asks which row is which."""

from collections.abc import Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.protect.output import Measured
from efsgd_jax.protect.smote import LEAST_SPREAD, near_rows

# Number of protected rows that are compared at a time, which bounds the memory.
AT_ONCE = 64
# Number of protected rows that the slower attack is tried on.
TRIED = 500


def attack_report(
    cells: np.ndarray, moved: np.ndarray, labels: np.ndarray, *, noise_scale: float, neighbours: int, fewest: int
) -> list[Measured]:
    """The tables of the report.

    Args:
      cells: the original rows, float ``[N, D]`` in [0, 1].
      moved: the protected ones, in the same order.
      labels: int ``[N]``.
      noise_scale: as in ``smote``; the attacker is assumed to know it.
      neighbours: the same.
      fewest: a row whose values occur in fewer rows than this is counted as at risk.
    """
    half = np.arange(cells.shape[1]) % 2 == 0
    rows: list[Sequence[str | float]] = [
        ("chance", 1 / len(cells)),
        ("nearest row", linked(cells, moved)),
        ("nearest row of the same label", linked_within(cells, moved, labels)),
        ("nearest row, every second column known", linked(cells[:, half], moved[:, half])),
        (
            "most likely row, by the noise of the method itself",
            linked_by_likelihood(cells, moved, labels, noise_scale=noise_scale, neighbours=neighbours),
        ),
    ]
    counts = [
        ("cells equal to the original", float(np.mean(cells == moved))),
        ("original rows whose values fewer than " + f"{fewest} rows share", at_risk(cells, fewest)),
        ("labels equal to the original", 1.0),
    ]
    return [
        Measured("which row is which, for an attacker who has the table", ("attack", "rows recognised"), rows),
        Measured("what is kept", ("what", "share"), counts),
    ]


def at_risk(cells: np.ndarray, fewest: int) -> float:
    """The share of rows whose values are those of fewer than ``fewest`` rows, themselves included.

    Examples:
      >>> at_risk(np.array([[0.1], [0.1], [0.3], [0.7]]), 2)
      0.5
    """
    _, group, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    return float(np.mean(count[group.reshape(-1)] < fewest))


def linked(cells: np.ndarray, moved: np.ndarray) -> float:
    """The share of protected rows whose nearest original is the one they were made of."""
    near = NearestNeighbors(n_neighbors=1).fit(cells).kneighbors(moved, return_distance=False)[:, 0]
    return float(np.mean(near == np.arange(len(cells))))


def linked_within(cells: np.ndarray, moved: np.ndarray, labels: np.ndarray) -> float:
    """``linked`` if only rows of the same label are compared, since labels are kept."""
    found = [(linked(cells[labels == k], moved[labels == k]), int((labels == k).sum())) for k in np.unique(labels)]
    return float(np.average([share for share, _ in found], weights=[count for _, count in found]))


def linked_by_likelihood(
    cells: np.ndarray, moved: np.ndarray, labels: np.ndarray, *, noise_scale: float, neighbours: int
) -> float:
    """``linked`` by the largest likelihood that ``smote`` made the protected row, over rows and their neighbours.

    It is tried on the first ``TRIED`` rows. Reflection at the ends is not regarded.
    """
    near = near_rows(cells, labels, neighbours)
    spread = np.maximum(cells.std(axis=0), LEAST_SPREAD)
    right = []
    for begin in range(0, min(TRIED, len(cells)), AT_ONCE):
        rows = np.arange(begin, min(begin + AT_ONCE, TRIED, len(cells)))
        best, found = np.full(len(rows), -np.inf), np.zeros(len(rows), np.int64)
        for i in range(near.shape[1]):
            other = cells[near[:, i]]
            scale = noise_scale * np.where(other == cells, spread, np.abs(other - cells))
            distance = np.abs(moved[rows, None] - cells) / scale
            score = -distance.sum(axis=2) - np.log(scale).sum(axis=1)
            score = np.where(labels[rows, None] == labels, score, -np.inf)
            better = score.max(axis=1) > best
            found = np.where(better, score.argmax(axis=1), found)
            best = np.maximum(best, score.max(axis=1))
        right.append(found == rows)
    return float(np.mean(np.concatenate(right)))
