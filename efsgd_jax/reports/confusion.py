"""Confusion matrices, and what they say of the balance of generated classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from efsgd_jax.reports.html import Markup, join, paragraph, percent, section, table, tag
from efsgd_jax.reports.images import picture
from efsgd_jax.reports.scores import interval, missing, title_of

# More columns than this do not fit a phone as numbers.
MAX_NUMBERS = 12
WORST = 10
PREFERRED = ("cnn", "mlp", "gradient_boosting", "logistic_regression")


def chosen(group: Mapping[str, Any], names: Sequence[str]) -> tuple[str, np.ndarray] | None:
    """The classifier whose confusion matrix is shown, and the counts ``[K, K]``, rows the true class."""
    for classifier in (*PREFERRED, *group):
        counts = np.asarray(group.get(classifier, {}).get("confusion", ()), float)
        if counts.shape == (len(names), len(names)):
            return classifier, counts
    return None


def confusion_matrix(gen2real: Mapping[str, Any], names: Sequence[str]) -> Markup | None:
    """Rows normalised; a table of percentages, or with many classes a picture and the worst confusions."""
    found = chosen(gen2real, names)
    if found is None:
        return None
    classifier, counts = found
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    title = f"Confusion, gen2real {title_of(classifier)}"
    text = "Rows: true class; columns: what the classifier says; percent of the row."
    shown = _numbers(shares, names) if len(names) <= MAX_NUMBERS else _picture(shares, names, title)
    return join(tag("h3", title), paragraph(text, class_="note"), shown)


def _numbers(shares: np.ndarray, names: Sequence[str]) -> Markup:
    head = tag("tr", tag("td"), *(tag("th", tag("span", name), scope="col") for name in names))
    rows = []
    for name, row in zip(names, shares, strict=True):
        # Ink stays readable on the strongest colour.
        cells = (tag("td", f"{100 * x:.0f}" if x >= 0.005 else "", style=f"--share: {0.6 * x:.3f}") for x in row)
        rows.append(tag("tr", tag("th", name, scope="row"), *cells))
    columns = tag("colgroup", *(tag("col") for _ in range(len(names) + 1)))
    return tag(
        "table",
        columns,
        tag("thead", head),
        tag("tbody", *rows),
        class_="matrix short" if max(map(len, names)) <= 2 else "matrix",
    )


def _picture(shares: np.ndarray, names: Sequence[str], title: str) -> Markup:
    off = shares - np.diag(np.diag(shares))
    order = np.argsort(off, axis=None)[::-1][:WORST]
    pairs = [divmod(int(i), len(names)) for i in order if off.flat[i] > 0]
    rows = [[names[i], names[j], percent(off[i, j])] for i, j in pairs]
    pixels = np.rint(255 * (1.0 - shares)).astype(np.uint8)[..., None]
    alt = f"{title}: {len(names)} by {len(names)} squares, darker where more images fall"
    return join(picture(pixels, alt, width=600), table(["True class", "Taken for", "%"], rows))


def balance_section(
    real2gen: Mapping[str, Any], names: Sequence[str], of_another: Markup | None, command: str
) -> Markup:
    """Which labels were asked for against which classes a classifier of real images sees."""
    title = "Balance of generated classes"
    found = chosen(real2gen, names)
    if found is None:
        return section("balance", title, missing("It is not known yet.", command))
    classifier, counts = found
    total = counts.sum()
    num_test = real2gen[classifier].get("num_test", int(total))  # each image was counted once for each seed
    widest = max(counts.sum(axis=0).max(), counts.sum(axis=1).max()) / total
    rows = []
    for k, name in enumerate(names):
        asked, seen, right = counts[k].sum() / total, counts[:, k].sum() / total, counts[k, k]
        low, high = interval(seen, num_test)
        of_seen = tag("small", f"95%: {100 * low:.1f} to {100 * high:.1f}")
        judged = tag("span", percent(seen), of_seen, _bar(asked / widest, seen / widest))
        rows.append([name, percent(asked), percent(right / max(counts[k].sum(), 1.0)), judged])
    text = (
        f"Asked for: the share of generated images that were given this label. Agrees: the share of those that a "
        f"classifier ({title_of(classifier)}) trained on real images takes for it too. Seen: the share of all that it "
        "takes for it; the mark on the bar is what was asked for. The classifier errs on real images too."
    )
    shown = table(["Class", "Asked for, %", "Agrees, %", "Seen, %"], rows)
    return section("balance", title, of_another, paragraph(text), shown, covered=False)


def _bar(asked: float, seen: float) -> Markup:
    """Both in shares of the longest bar, whose end leaves room for a mark."""
    filled = tag("i", style=f"width: {98 * seen:.1f}%")
    mark = tag("b", style=f"left: {98 * asked:.1f}%")
    said = "less than asked for" if seen < asked else "as much as asked for" if seen == asked else "more than asked for"
    return tag("span", filled, mark, class_="bar", role="img", aria_label=said)
