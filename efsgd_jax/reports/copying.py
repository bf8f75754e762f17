"""Whether the generator copies: the verdict, the numbers, and the closest pairs, real images beside generated ones."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from efsgd_jax.formatting import format_lower_bound
from efsgd_jax.reports.html import Markup, code, epsilon_shown, join, number, paragraph, section, table, tag
from efsgd_jax.reports.images import picture
from efsgd_jax.reports.scores import missing

SPACES = {"pixels": "Pixels", "classifier": "Classifier's features"}
# Names of the measures, and whether they are shares, which are shown in percent.
MEASURES = {
    "closer_to_train": ("Nearest real image is a training image, %", True),
    "expected_closer_to_train": ("The same for new images, %", True),
    "copied_share": ("Share of copies that explains the excess, %", True),
    "z": ("Excess in standard deviations (z)", False),
    "z_of_closest": ("The same, near-duplicates only", False),
    "authenticity": ("Authenticity, % (new images: about 50)", True),
    "near_duplicates": ("Near-duplicates of training images, % (held-out images: 1)", True),
    "near_duplicates_of_test": ("Near-duplicates of held-out images, %", True),
    "median_distance_train": ("Median distance to the nearest training image", False),
    "median_distance_test": ("Median distance to the nearest held-out image", False),
}


class Pair(NamedTuple):
    """A generated image and the training image nearest to it, uint8 ``[S, S, C]``, and how far apart they are."""

    generated: np.ndarray
    train: np.ndarray
    distance: float


def copying_section(
    copying: Mapping[str, Any], pairs: Sequence[Pair], why_no_pairs: str, of_another: Markup | None, command: str
) -> Markup:
    """The verdict, the numbers and the pairs.

    Args:
      copying: of ``scores.json``.
      pairs: the closest, closest first.
      why_no_pairs: what to say if there are none.
      of_another: says that the scores are of another generator.
      command: that makes them.

    Formal guarantees:
      None: it shows real training images.
    """
    if not copying:
        return section("copying", "Copying", missing("Nobody has looked for copies yet.", command))
    parts = _verdict(copying), _numbers(copying), _pictures(pairs, why_no_pairs)
    return section("copying", "Copying", of_another, *parts, covered=False)


def _verdict(copying: Mapping[str, Any]) -> Markup | None:
    if "flagged" not in copying:
        return None
    exact = copying.get("exact_copies")
    counted = "" if exact is None else f" Images that are a training image to the last pixel: {exact:,}."
    if copying["flagged"]:
        said = "Generated images are closer to training images than new ones would be."
        return paragraph(tag("strong", "Copying flagged. "), said, counted, class_="notice bad")
    said = "Generated images are no closer to training images than to held-out ones, beyond what chance explains."
    return paragraph(tag("strong", "No copying found. "), said, counted, class_="notice good")


def _numbers(copying: Mapping[str, Any]) -> Markup | None:
    spaces = copying.get("spaces", {})
    if not spaces:
        return None
    rows = []
    for measure, (name, is_share) in MEASURES.items():
        values = [space.get(measure) for space in spaces.values()]
        if any(value is not None for value in values):
            # Fewer than expected is no copies at all.
            least = 0.0 if measure == "copied_share" else -math.inf
            shown = (None if v is None else max(least, 100 * v if is_share else v) for v in values)
            rows.append([name, *(number(v, 3) for v in shown)])
    return table(["Measure", *(SPACES.get(name, name) for name in spaces)], rows)


def _pictures(pairs: Sequence[Pair], why_no_pairs: str) -> Markup:
    title = tag("h3", "Closest pairs")
    if not pairs:
        return join(title, paragraph(why_no_pairs))
    figures = [
        tag("figure", tag("div", picture(p.generated, f"generated image {i}", width=72),
                          picture(p.train, f"the real training image nearest to generated image {i}", width=72)),
            tag("figcaption", f"distance {number(p.distance, 3)}"))
        for i, p in enumerate(pairs, 1)
    ]  # fmt: skip
    text = "Left: generated. Right: the real training image nearest to it. Real images: this page is private."
    return join(title, paragraph(text), tag("div", *figures, class_="pairs"))


def audit_section(audit: Mapping[str, Any], of_another: Markup | None, command: str) -> Markup:
    """What an attack on the released images proves, beside what is claimed.

    Args:
      audit: the fields of ``efsgd_jax.audit.membership.Membership``; empty if there was no audit.
      of_another: says that the audit is of another generator.
      command: that makes it.
    """
    if not audit:
        return section(
            "audit", "Audit", paragraph("No audit is on record. ", code(command), " attacks this run's images.")
        )
    claimed, bound = float(audit["claimed"]), float(audit["bound"])
    refuted = bound > claimed
    verdict = "The attack refutes the claim." if refuted else "The attack does not refute the claim."
    rows = [
        ["Epsilon claimed", f"{epsilon_shown(claimed)} at delta {audit['delta']:g}"],
        ["Epsilon is at least (95%)", format_lower_bound(bound)],
        ["Area under the ROC curve (a coin: 0.5)", number(audit["curve"], 3)],
        ["True positives at 1% false positives, %", number(100 * audit["rate"], 3)],
        ["Images of each side", f"{audit['images']:,}"],
    ]
    text = "Membership inference on released images: do they lie nearer to images that were trained on? A lower bound, "
    text += "if the split into training and test images was random; a small one proves nothing."
    notice = paragraph(tag("strong", verdict), class_="notice bad" if refuted else "notice")
    numbers = table(["Measure", "value"], rows)
    return section("audit", "Audit", of_another, notice, paragraph(text), numbers, covered=False)
