"""The section with the scores of a run's images: accuracies with intervals, and fidelity, for each protocol."""

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

from efsgd_jax.reports.formats import number, percent
from efsgd_jax.reports.sections import Mismatch, Section, missing
from efsgd_jax.reports.tables import Cell, Table

# Names on the page of classifiers, of the networks whose features are compared, and of measures.
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


def interval(accuracy: float, num_test: int) -> tuple[float, float]:
    """95% Wilson interval of an accuracy on ``num_test`` images: the uncertainty due to the choice of test images."""
    found = binomtest(round(accuracy * num_test), num_test).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def title_of(classifier: str) -> str:
    return TITLES.get(classifier, classifier.replace("_", " "))


def scores_section(scores: Mapping[str, Any], mismatch: Mismatch | None, command: str) -> Section:
    """The section with accuracies and fidelity: without a protocol first, then for each protocol.

    Args:
      scores: content of ``private/scores.json``; any part may be absent.
      mismatch: set if the scores are of another generator; otherwise None.
      command: the command that computes the scores.
    """
    groups = [_group(scores, None)] if _has_group(scores) else []
    for protocol, group in scores.get("protocols", {}).items():
        if _has_group(group):
            groups.append(_group(group, protocol))
    if not groups:
        return missing("scores", "Scores", "There are no scores yet.", command)
    return Section("scores", "Scores", "scores.html", {"groups": groups}, mismatch=mismatch)


def leading(scores: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scores without a protocol; where gen2real has none, those of the first protocol, which is named."""
    protocols = scores.get("protocols", {})
    if not scores or scores.get("gen2real") or not protocols:
        return scores
    name, group = next(iter(protocols.items()))
    return {**group, "copying": scores.get("copying", {}), "protocol": name}


def _has_group(group: Mapping[str, Any]) -> bool:
    return any(group.get(part) for part in ("gen2real", "real2gen", "fidelity"))


def _group(group: Mapping[str, Any], protocol: str | None) -> dict[str, Any]:
    """The tables of the scores of one protocol, or of those without a protocol. Each network has its own table."""
    gen2real, real2gen = group.get("gen2real", {}), group.get("real2gen", {})
    kinds = {"gen2real, %": gen2real, "real2gen, %": real2gen}
    kinds = {head: found for head, found in kinds.items() if found}
    rows = [[title_of(c), *(_accuracy(found.get(c)) for found in kinds.values())] for c in {**gen2real, **real2gen}]
    fidelity = group.get("fidelity", {})
    return {
        "protocol": protocol,
        "accuracies": Table(["Classifier", *kinds], rows) if rows else None,
        "num_images": f"{group['num_images']:,}" if group.get("num_images") else None,
        "num_seeds": max((len(u.get("accuracies", ())) for u in gen2real.values()), default=0),
        "fidelity": [_fidelity(name, values) for name, values in fidelity.items() if isinstance(values, dict)],
        "remarks": group.get("remarks", ()),
    }


def _accuracy(found: Mapping[str, Any] | None) -> str | Cell:
    if not found or found.get("accuracy") is None:
        return "–"
    shown = percent(found["accuracy"])
    if found.get("std"):
        shown += f" ± {100 * found['std']:.1f}"
    n = found.get("num_test")
    if not n:
        return shown
    low, high = interval(found["accuracy"], n)
    return Cell(shown, f"95%: {100 * low:.1f} to {100 * high:.1f}; n = {n:,}")


def _fidelity(name: str, values: Mapping[str, Any]) -> Table:
    rows = []
    for measure, title in MEASURES.items():
        if values.get(measure) is not None:
            shown = number(values[measure]) if measure != "num_images" else f"{values[measure]:,.0f}"
            spread = values.get(f"{measure}_std")
            rows.append([title, shown if spread is None else f"{shown} ± {number(spread, 2)}"])
    return Table(["measure", "value"], rows, caption=EXTRACTORS.get(name, f"Features of {name}"))
