"""The section on copying: the verdict, the measures, and the closest pairs of a generated and a real image."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from efsgd_jax.evaluation.metrics.neighbours import RELEVANT, SIGNIFICANT
from efsgd_jax.reports.formats import number
from efsgd_jax.reports.images import picture
from efsgd_jax.reports.sections import Mismatch, Section, missing
from efsgd_jax.reports.tables import Table

SPACES = {"pixels": "Pixels", "classifier": "Classifier's features"}
# Fields of ``Space`` -> their name on the page, and whether they are shares, which are shown in percent.
MEASURES = {
    "closer_to_train": ("Nearest real image is a training image, %", True),
    "expected_closer_to_train": ("The same, expected for new images, %", True),
    "copied_share": (
        f"Share of copies that would explain the excess, % (no number where z is below {SIGNIFICANT:g}: chance)",
        True,
    ),
    "z": ("Excess in standard deviations (z)", False),
    "z_of_closest": ("Excess of near-duplicates in standard deviations", False),
    "authenticity": ("Authenticity, % (new images: about 50)", True),
    "near_duplicates": ("Generated images that nearly duplicate a training image, % (of held-out images, 1% do)", True),
    "near_duplicates_of_test": ("Generated images that nearly duplicate a held-out image, %", True),
    "median_distance_train": ("Median distance to the nearest training image", False),
    "median_distance_test": ("Median distance to the nearest held-out image", False),
}


class Pair(NamedTuple):
    """A generated image and its nearest training image, each uint8 ``[S, S, C]``, and their distance."""

    generated: np.ndarray
    train: np.ndarray
    distance: float


def copying_section(
    copying: Mapping[str, Any], pairs: Sequence[Pair], why_no_pairs: str, mismatch: Mismatch | None, command: str
) -> Section:
    """The section with the verdict, the measures and the closest pairs.

    Args:
      copying: the part ``copying`` of ``private/scores.json``; empty if it was not computed.
      pairs: the closest pairs, sorted by distance.
      why_no_pairs: the reason that is shown if there are no pairs.
      mismatch: set if the scores are of another generator; otherwise None.
      command: the command that computes the scores.

    Formal guarantees:
      None: it shows real training images.
    """
    if not copying:
        return missing("copying", "Copying", "Copies have not been looked for yet.", command)
    exact = copying.get("exact_copies")
    data = {
        "flagged": copying.get("flagged"),
        "significant": f"{SIGNIFICANT:g}",
        "relevant": f"{100 * RELEVANT:g}",
        "exact_copies": None if exact is None else f"{exact:,}",
        "measures": _measures(copying.get("spaces", {})),
        "pairs": [_pictures(pair, i) for i, pair in enumerate(pairs, 1)],
        "why_no_pairs": why_no_pairs,
    }
    return Section("copying", "Copying", "copying.html", data, covered_by_epsilon=False, mismatch=mismatch)


def _measures(spaces: Mapping[str, Any]) -> Table | None:
    """The table of measures: a row for each that was computed in at least one space, a column for each space."""
    if not spaces:
        return None
    rows = []
    for measure, (name, is_share) in MEASURES.items():
        values = [None if measure == "copied_share" and _by_chance(s) else s.get(measure) for s in spaces.values()]
        if any(value is not None for value in values):
            # If fewer images than expected are closest to a training image, the share of copies is shown as 0.
            least = 0.0 if measure == "copied_share" else -math.inf
            shown = (None if v is None else max(least, 100 * v if is_share else v) for v in values)
            rows.append([name, *(number(v, 3) for v in shown)])
    return Table(["Measure", *(SPACES.get(name, name) for name in spaces)], rows)


def _by_chance(space: Mapping[str, Any]) -> bool:
    """Whether an excess as large as this one is no sign of copies."""
    z = space.get("z")
    return z is not None and z < SIGNIFICANT


def _pictures(pair: Pair, i: int) -> dict[str, Any]:
    nearest = f"the real training image nearest to generated image {i}"
    return {
        "generated": picture(pair.generated, f"generated image {i}", width=72),
        "train": picture(pair.train, nearest, width=72),
        "distance": number(pair.distance, 3),
    }
