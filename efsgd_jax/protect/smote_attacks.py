"""Attacks on rows that ``smote`` replaced, by an attacker who has the original table and asks which row is which."""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.protect.output import Measured
from efsgd_jax.protect.smote import Moved, Near, near_rows
from efsgd_jax.protect.smote_likelihood import log_density, log_sum

# Number of cells that are compared at a time, which bounds the memory, and in all, which bounds the time.
AT_ONCE, MOST_CELLS = 2**21, 2**31
# Number of protected rows that the attack by likelihood is tried on: at most, and at least.
TRIED, LEAST_TRIED = 500, 20

# Function of protected rows ``[B, 1, D]``, of rows ``[n, D]`` they may be made of, and of a near row of each
# ``[n, D]``; it returns the log-likelihoods ``[B, n]``.
Likelihood = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def attack_report(
    cells: np.ndarray, labels: np.ndarray, moved: Moved, *, noise_scale: float, neighbours: int, fewest: int
) -> list[Measured]:
    """The tables of the report.

    Args:
      cells: the original rows, float ``[N, D]`` in [0, 1].
      labels: their labels, int ``[N]``.
      moved: the protected rows, as they are written.
      noise_scale: as in ``smote``; the attacker is assumed to know it.
      neighbours: the same.
      fewest: a row whose values occur in fewer rows than this is counted as at risk.
    """
    half = np.arange(cells.shape[1]) % 2 == 0
    near = near_rows(cells, labels, neighbours)
    tried = tried_rows(len(cells), near, cells.shape[1])
    likely = log_density(cells, noise_scale)
    rows: list[Sequence[str | float]] = [
        ("chance", 1 / len(cells)),
        ("chance, the label known", len(np.unique(labels)) / len(cells)),
        ("row at the same place", float(np.mean(moved.origin == np.arange(len(cells))))),
        ("row at the same place of the same label", linked_by_place(labels, moved)),
        ("nearest row", linked(cells, moved)),
        ("nearest row of the same label", linked_within(cells, labels, moved)),
        (
            "nearest row of the same label, every second column known",
            linked_within(cells[:, half], labels, moved._replace(cells=moved.cells[:, half])),
        ),
        (
            "most likely row, by the noise of the method itself",
            linked_by_likelihood(cells, labels, moved, near, likely, tried),
        ),
    ]
    counts = [
        ("cells equal to the original", float(np.mean(cells[moved.origin] == moved.cells))),
        ("original rows whose values fewer than " + f"{fewest} rows share", at_risk(cells, fewest)),
        ("labels equal to the original", float(np.mean(labels[moved.origin] == moved.labels))),
    ]
    who = f"which row is which, for an attacker who has the table; the last attack is tried on {tried} rows"
    return [Measured(who, ("attack", "rows recognised"), rows), Measured("what is kept", ("what", "share"), counts)]


def at_risk(cells: np.ndarray, fewest: int) -> float:
    """The share of rows whose values are those of fewer than ``fewest`` rows, themselves included.

    Examples:
      >>> at_risk(np.array([[0.1], [0.1], [0.3], [0.7]]), 2)
      0.5
    """
    _, group, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    return float(np.mean(count[group.reshape(-1)] < fewest))


def linked(cells: np.ndarray, moved: Moved) -> float:
    """The share of protected rows whose nearest original is the one they were made of."""
    near = NearestNeighbors(n_neighbors=1).fit(cells).kneighbors(moved.cells, return_distance=False)[:, 0]
    return float(np.mean(near == moved.origin))


def linked_within(cells: np.ndarray, labels: np.ndarray, moved: Moved) -> float:
    """``linked`` if only rows of the same label are compared, since labels are kept."""
    found = np.empty(len(moved.cells), np.int64)
    for label in np.unique(labels):
        (rows,), at = np.nonzero(labels == label), moved.labels == label
        near = NearestNeighbors(n_neighbors=1).fit(cells[rows]).kneighbors(moved.cells[at], return_distance=False)
        found[at] = rows[near[:, 0]]
    return float(np.mean(found == moved.origin))


def linked_by_place(labels: np.ndarray, moved: Moved) -> float:
    """The share of protected rows that are the k-th of their label, as the row is that they were made of."""
    found = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        found[moved.labels == label] = np.flatnonzero(labels == label)
    return float(np.mean(found == moved.origin))


def tried_rows(rows: int, near: Near, columns: int) -> int:
    """The number of protected rows on which the attack by likelihood is tried: fewer in large tables."""
    affordable = MOST_CELLS // (rows * near.rows.shape[1] * columns)
    return min(rows, max(LEAST_TRIED, min(TRIED, affordable)))


def linked_by_likelihood(
    cells: np.ndarray, labels: np.ndarray, moved: Moved, near: Near, likelihood: Likelihood, tried: int = TRIED
) -> float:
    """``linked_within`` by the largest likelihood that the method made the protected row, with any of its neighbours.

    Args:
      cells: the original rows, float ``[N, D]``.
      labels: their labels, int ``[N]``.
      moved: the protected rows.
      near: the rows among which the method chose the other one of each row, with equal probabilities.
      likelihood: the method's own, such as ``smote_likelihood.log_density``.
      tried: on how many random protected rows it is tried.
    """
    # The choice of rows is no secret, and a fixed one lets reports be compared.
    chosen = np.random.default_rng(0).permutation(len(moved.cells))[:tried]
    right = 0
    for label in np.unique(moved.labels[chosen]):
        (rows,), asked = np.nonzero(labels == label), chosen[moved.labels[chosen] == label]
        size = max(1, AT_ONCE // (len(rows) * cells.shape[1]))
        for begin in range(0, len(asked), size):
            some = asked[begin : begin + size]
            score = log_sum(
                likelihood(moved.cells[some, None], cells[rows], cells[near.rows[rows, i]])
                for i in range(near.counts[rows[0]])
            )
            right += int(np.sum(rows[score.argmax(axis=1)] == moved.origin[some]))
    return right / len(chosen)
