"""``protect_rows``: replaces the rows of a table, attacks the result, and writes the statement."""

import secrets
from pathlib import Path

import numpy as np

from efsgd_jax.protect.output import Protection, mark_directory, write_protection
from efsgd_jax.protect.rows import Rows
from efsgd_jax.protect.smote import smote
from efsgd_jax.protect.smote_attacks import attack_report

SUMMARY = (
    "Every cell of every row was moved towards or away from a row of the same label, by random noise whose size "
    "follows the distance of the two private rows."
)
RESISTS = ["a search for a row by its exact values: no cell has its old one"]
BREAKS = [
    "whoever has the original table recognises the share of rows below, most of them if they know the method",
    "labels are released as they are",
    "the noise is small where private rows are near to each other, so that it says how near they are",
    "whoever knows the seed takes the noise off",
]


def protect_rows(
    rows: Rows, out: Path, *, noise_scale: float, neighbours: int, fewest: int, seed: int | None
) -> tuple[np.ndarray, float]:
    """Writes ``PROTECTION.md`` for replaced rows into the new directory ``out``.

    Args:
      rows: the original rows.
      out: an empty or new directory; it is marked as protected.
      noise_scale: as in ``smote``.
      neighbours: the same.
      fewest: as in ``attack_report``.
      seed: as in ``smote``; None for a fresh one, which is not kept.

    Returns:
      The replaced cells ``[N, D]``, and the share of rows that the best attack recognises.

    Raises:
      UserError: an option is out of range, or ``out`` cannot be written.
    """
    moved = smote(
        rows.cells,
        rows.labels,
        noise_scale=noise_scale,
        neighbours=neighbours,
        seed=secrets.randbits(128) if seed is None else seed,
    )
    mark_directory(out, "smote")
    measured = attack_report(
        rows.cells, moved, rows.labels, noise_scale=noise_scale, neighbours=neighbours, fewest=fewest
    )
    settings: dict[str, str | float] = {"noise_scale": noise_scale, "neighbours": neighbours, "rows": len(moved)}
    write_protection(out, Protection("smote", SUMMARY, RESISTS, BREAKS, settings, measured))
    return moved, max(float(row[1]) for row in measured[0].rows)
