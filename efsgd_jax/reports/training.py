"""The training section: curves of the metrics against the epsilon spent."""

import math
from typing import Any

from efsgd_jax.reports.plots import curve
from efsgd_jax.reports.sections import Section

# Title and unit of the metrics that are not losses; ``_described`` has those of the others.
UNITS = {
    "accuracy": ("Accuracy of the private classifier", "share of real images"),
    "clipped_share": ("Clipped gradients", "share of gradients"),
    "nats_per_pixel": ("Negative log-likelihood", "nats per pixel"),
    "kl": ("KL divergence of the code", "nats, mean per image"),
    "images_per_second": ("Speed", "images per second"),
    "gradient_norm": ("Gradient norm", "L2 norm, mean per image"),
    "not_finite": ("Gradients left out", "per step, not finite"),
}
# Fields of a row of metrics that have no curve.
NOT_SHOWN = ("step", "phase", "epsilon", "batch_size")
# Prefix of the metrics that are the share of clipped gradients, one for each loss.
CLIPPED = "clipped_share_"


def training_section(rows: list[dict[str, Any]], train_command: str) -> Section:
    """The section with a curve for each metric of ``metrics.jsonl``.

    Args:
      rows: the rows of the file; with fewer than two there are no curves.
      train_command: the command that trains the run, shown if there are no curves.
    """
    curves = _curves(rows) if len(rows) > 1 else []
    data = {"recorded": len(rows) > 1, "curves": curves, "command": train_command}
    # The curves are functions of the real images without noise. Without rows, the section reveals nothing of them.
    return Section("training", "Training", "training.html", data, covered_by_epsilon=len(rows) < 2)


def _curves(rows: list[dict[str, Any]]) -> list[str]:
    """The curves as SVG, against the epsilon spent or, if it is not finite, against the step."""
    spent = [row.get("epsilon") for row in rows]
    noisy = all(isinstance(x, int | float) and math.isfinite(x) for x in spent)
    x = [float(row["epsilon"] if noisy else row["step"]) for row in rows]
    x_label = "epsilon spent" if noisy else "step (no finite epsilon was accounted for)"
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n not in NOT_SHOWN]
    if names == ["images_per_second"]:  # a method without losses
        return []
    names.sort(key=lambda n: (n in UNITS, n.startswith(CLIPPED), n))
    curves = []
    for name in names:
        title, unit = _described(name)
        y = [math.nan if row.get(name) is None else float(row[name]) for row in rows]
        if any(math.isfinite(v) and v for v in y):  # metrics that are always zero are not shown
            curves.append(curve(title, x, y, x_label=x_label, y_label=unit))
    return curves


def _described(name: str) -> tuple[str, str]:
    if name.startswith(CLIPPED):
        return f"Clipped, {name.removeprefix(CLIPPED)}", "share of gradients"
    return UNITS.get(name, (f"{name.replace('_', ' ').capitalize()} loss", "mean per image"))
