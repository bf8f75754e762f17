"""How training went, against the epsilon that it had spent."""

import math

from efsgd_jax.reports.html import Markup, code, paragraph, section, tag
from efsgd_jax.reports.plots import curve

# Metrics that are not functions of a loss, with what their axis says.
UNITS = {
    "images_per_second": ("Speed", "images per second"),
    "gradient_norm": ("Gradient norm", "L2 norm, mean per image"),
    "not_finite": ("Gradients left out", "per step, not finite"),
}
CLIPPED = "clipped_share_"


def training_section(rows: list[dict[str, float]], train_command: str) -> Markup:
    """Every metric of ``metrics.jsonl`` as a curve."""
    if len(rows) < 2:
        return section("training", "Training", paragraph("Fewer than two rows of metrics were recorded. ",
                       code(train_command), " records a row every config.train.log_every steps."))  # fmt: skip
    spent = [row.get("epsilon") for row in rows]
    noisy = all(isinstance(x, int | float) and math.isfinite(x) for x in spent)
    x = [float(row["epsilon"] if noisy else row["step"]) for row in rows]
    x_label = "epsilon spent" if noisy else "step (nothing was accounted for: no noise)"
    names = [n for n in rows[-1] if n not in ("step", "epsilon", "batch_size")]
    names.sort(key=lambda n: (n in UNITS, n.startswith(CLIPPED), n))
    plots = []
    for name in names:
        title, unit = _described(name)
        y = [math.nan if row.get(name) is None else float(row[name]) for row in rows]
        if any(math.isfinite(v) and v for v in y):  # a curve that is zero throughout says nothing
            plots.append(tag("figure", curve(title, x, y, x_label=x_label, y_label=unit)))
    text = "Means over the steps since the row before. Functions of real images without noise: private."
    return section("training", "Training", paragraph(text), tag("div", *plots, class_="plots"), covered=False)


def _described(name: str) -> tuple[str, str]:
    if name.startswith(CLIPPED):
        return f"Clipped, {name.removeprefix(CLIPPED)}", "share of gradients"
    if name == "kl":
        return "KL divergence of the code", "nats, mean per image"
    return UNITS.get(name, (f"{name.replace('_', ' ').capitalize()} loss", "mean per image"))
