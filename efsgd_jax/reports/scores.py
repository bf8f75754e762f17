"""Scores of a run's images: tables with intervals, by class, by protocol, by network."""

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

from efsgd_jax.reports.html import Markup, code, join, number, paragraph, percent, section, table, tag

TITLES = {
    "logistic_regression": "Logistic regression",
    "mlp": "MLP",
    "cnn": "CNN",
    "gradient_boosting": "Gradient boosting",
}
EXTRACTORS = {
    "classifier": "Features of a CNN trained on the real training images",
    "inception": "Features of InceptionV3",
}
MEASURES = {
    "fid": "FID, lower is better",
    "kid": "KID, lower is better",
    "inception_score": "Inception score, higher is better",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "num_images": "Images compared",
}
READING = (
    "gen2real: trained on generated images, tested on the real test images. real2gen: trained on real images, tested "
    "on generated ones. The intervals are Wilson's, of the n test images alone: what another such test set may say."
)
NOT_COVERED = "These numbers read real images. They are not covered by epsilon and must not be published as private."


def interval(accuracy: float, num_test: int) -> tuple[float, float]:
    """95% Wilson interval of an accuracy on ``num_test`` images: what another test set of that size may say."""
    found = binomtest(round(accuracy * num_test), num_test).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def title_of(classifier: str) -> str:
    return TITLES.get(classifier, classifier.replace("_", " "))


def not_covered() -> Markup:
    return paragraph(tag("strong", "Not covered by epsilon. "), NOT_COVERED, class_="notice bad")


def missing(what: str, command: str) -> Markup:
    return paragraph(f"{what} Make it with ", code(command), ".", class_="notice")


def scores_section(scores: Mapping[str, Any], of_another: Markup | None, command: str) -> Markup:
    """The score table, fidelity, and each protocol by itself.

    Args:
      scores: ``private/scores.json``; any part may be absent.
      of_another: says that the scores are of another generator.
      command: that makes them.
    """
    parts = [_group(scores)] if _has_group(scores) else []
    for name, group in scores.get("protocols", {}).items():
        if _has_group(group):
            parts.append(join(tag("h3", f"By the protocol {name}"), _group(group)))
    if len(parts) > 1 or _has_group(scores):
        parts.append(paragraph(READING, class_="note"))
    if not parts:
        return section("scores", "Scores", missing("There are no scores yet.", command))
    return section("scores", "Scores", not_covered(), of_another, *parts)


def _has_group(group: Mapping[str, Any]) -> bool:
    return any(group.get(part) for part in ("gen2real", "real2gen", "fidelity"))


def _group(group: Mapping[str, Any]) -> Markup:
    """Scores that were computed alike; those of another protocol or network never share their columns."""
    gen2real, real2gen = group.get("gen2real", {}), group.get("real2gen", {})
    kinds = {"gen2real, %": gen2real, "real2gen, %": real2gen}
    kinds = {head: found for head, found in kinds.items() if found}
    rows = [[title_of(c), *(_accuracy(found.get(c)) for found in kinds.values())] for c in {**gen2real, **real2gen}]
    return join(
        table(["Classifier", *kinds], rows) if rows else None,
        paragraph(_of_what(group), class_="note"),
        *(_fidelity(name, values) for name, values in group.get("fidelity", {}).items() if isinstance(values, dict)),
        *(paragraph(remark, class_="note") for remark in group.get("remarks", ())),
    )


def _accuracy(found: Mapping[str, Any] | None) -> Markup:
    if not found or found.get("accuracy") is None:
        return join("–")
    shown = percent(found["accuracy"])
    if found.get("std"):
        shown += f" ± {100 * found['std']:.1f}"
    n = found.get("num_test")
    if not n:
        return join(shown)
    low, high = interval(found["accuracy"], n)
    return tag("span", shown, tag("small", f"95%: {100 * low:.1f} to {100 * high:.1f}; n = {n:,}"))


def _of_what(group: Mapping[str, Any]) -> str:
    seeds = max((len(u.get("accuracies", ())) for u in group.get("gen2real", {}).values()), default=0)
    text = f"{group['num_images']:,} generated images." if group.get("num_images") else ""
    return text + (f" After ±: the standard deviation over {seeds} seeds of the classifier." if seeds > 1 else "")


def _fidelity(name: str, values: Mapping[str, Any]) -> Markup:
    rows = []
    for measure, title in MEASURES.items():
        if values.get(measure) is not None:
            shown = number(values[measure]) if measure != "num_images" else f"{values[measure]:,.0f}"
            spread = values.get(f"{measure}_std")
            rows.append([title, shown if spread is None else f"{shown} ± {number(spread, 2)}"])
    return table(["measure", "value"], rows, caption=EXTRACTORS.get(name, f"Features of {name}"))


def classes_section(
    scores: Mapping[str, Any], matrix: Markup | None, of_another: Markup | None, command: str
) -> Markup:
    """Recall of each class, and which class is taken for which."""
    of = {c: u["per_class"] for c, u in scores.get("gen2real", {}).items() if u.get("per_class")}
    if not of:
        return section("classes", "By class", missing("There are no scores by class yet.", command))
    names = list(next(iter(of.values())))
    rows = [[name, *(percent(per_class.get(name)) for per_class in of.values())] for name in names]
    text = "Share of each class's real test images that classifiers trained on generated images get right, in percent."
    recall = table(["Class", *map(title_of, of)], rows)
    return section("classes", "By class", of_another, paragraph(text), recall, matrix, covered=False)
