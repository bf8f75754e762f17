"""``protect_rows``: replaces the rows of a table, attacks the result, and writes the statement."""

import secrets
from pathlib import Path
from typing import NamedTuple

from efsgd_jax.errors import UserError
from efsgd_jax.protect.output import Protection, write_protection
from efsgd_jax.protect.rows import Rows
from efsgd_jax.protect.smote import Moved, check_labels, check_options, in_random_order, near_rows, smote
from efsgd_jax.protect.smote_attacks import attack_report

SUMMARY = (
    "Every cell of every row was moved towards or away from a row of the same label, by random noise whose size "
    "follows the distance of the two private rows. Rows are in a random order."
)
RESISTS = [
    "a search for a row by its exact values: no cell has its old one",
    "a search by the place of a row in the file: the order is random",
]
BREAKS = [
    "whoever has the original table recognises the share of rows below, most of them if they know the method",
    "labels are released as they are, so that the number of rows of each is too",
    "the noise is small where private rows are near to each other, so that it says how near they are",
    "whoever knows the seed takes the noise off, and puts the rows back into their order",
]


class Outcome(NamedTuple):
    """What ``protect_rows`` made.

    Attributes:
      moved: the replaced rows, as they are to be written.
      recognised: the share of rows that the best attack recognises, in [0, 1].
      fewest: k of the label with the fewest neighbours to choose from.
      most: k of the label with the most.
    """

    moved: Moved
    recognised: float
    fewest: int
    most: int


def protect_rows(
    rows: Rows, out: Path, *, noise_scale: float, neighbours: int, fewest: int, seed: int | None
) -> Outcome:
    """Writes ``PROTECTION.md`` for replaced rows into the new directory ``out``; the rows are left to the caller.

    Args:
      rows: the original rows.
      out: an empty or new directory; it is marked as protected, once the attacks are done.
      noise_scale: as in ``smote``.
      neighbours: the same.
      fewest: as in ``attack_report``, at least 1.
      seed: seed of the noise and of the order, at least 0, and a secret; None for fresh ones, which are not kept.

    Raises:
      UserError: an option is out of range, a label has one row only, or ``out`` cannot be written.

    Formal guarantees:
      None: no bound holds for these rows. The noise of a row follows its distance to another private row, and labels
      are released as they are. What the report measures holds for the attacks in it, and an attack that is not in it
      may do better. ``private_smote`` is the form with a guarantee.
    """
    check_options(noise_scale, neighbours, seed or 0)
    if fewest < 1:
        raise UserError(f"k is {fewest}; it is at least 1: a row is at risk if fewer than k rows share its values")
    check_labels(rows.labels, rows.label_values)
    noise, order = (secrets.randbits(128), secrets.randbits(128)) if seed is None else (seed, seed)
    cells = smote(rows.cells, rows.labels, noise_scale=noise_scale, neighbours=neighbours, seed=noise)
    moved = in_random_order(cells, rows.labels, order)
    used = near_rows(rows.cells, rows.labels, neighbours).counts
    measured = attack_report(
        rows.cells, rows.labels, moved, noise_scale=noise_scale, neighbours=neighbours, fewest=fewest
    )
    settings: dict[str, str | float] = {
        "noise_scale": noise_scale,
        "neighbours": neighbours,
        "neighbours of the label with the fewest": int(used.min()),
        "neighbours of the label with the most": int(used.max()),
        "rows": len(moved.cells),
    }
    # Nothing is written before, so that a failure leaves no directory; the mark is still there before the rows.
    write_protection(out, Protection("smote", SUMMARY, RESISTS, BREAKS, settings, measured))
    return Outcome(moved, max(float(row[1]) for row in measured[0].rows), int(used.min()), int(used.max()))
