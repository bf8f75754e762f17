"""Scores by class: recall, confusion matrix, and the balance of the generated classes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from efsgd_jax.reports.formats import percent
from efsgd_jax.reports.images import Picture, picture
from efsgd_jax.reports.scores import interval, title_of
from efsgd_jax.reports.sections import Mismatch, Section, missing
from efsgd_jax.reports.tables import Bar, Cell, Table

# Largest number of classes for which the confusion matrix is shown as numbers; more columns do not fit on a phone.
MAX_NUMBERS = 12
# Number of pairs of classes, those confused most often, that are listed.
WORST = 10
# The order in which classifiers are tried for the confusion matrix that is shown.
PREFERRED = ("cnn", "mlp", "gradient_boosting", "logistic_regression")


class Confusion(NamedTuple):
    """A confusion matrix whose rows sum to 1. It is shown as numbers or, if there are many classes, as a picture.

    Attributes:
      title: heading of the matrix, which names the classifier.
      names: names of the classes.
      shares: the matrix ``[K][K]``; rows are true classes, columns predicted ones.
      short: whether all names are short enough for the heads of narrow columns.
      picture: the picture; None for few classes, where numbers are shown.
      worst: table of the most frequent confusions, which is shown with the picture; None without a picture.
    """

    title: str
    names: Sequence[str]
    shares: list[list[float]]
    short: bool
    picture: Picture | None = None
    worst: Table | None = None


def classes_section(
    scores: Mapping[str, Any], names: Sequence[str], mismatch: Mismatch | None, command: str
) -> Section:
    """The section with the recall of each class and a confusion matrix.

    Args:
      scores: the scores that ``leading`` finds; any part may be absent.
      names: names of the classes.
      mismatch: set if the scores are of another generator; otherwise None.
      command: the command that computes the scores.
    """
    gen2real = scores.get("gen2real", {})
    confusion = confusion_of(gen2real, names)
    recalls = {c: u["per_class"] for c, u in gen2real.items() if u.get("per_class")}
    if not recalls:
        return missing("classes", "By class", "There are no scores by class yet.", command)
    scored = next(iter(recalls.values()))
    rows = [[name, *(percent(per_class.get(name)) for per_class in recalls.values())] for name in scored]
    table = Table(["Class", *map(title_of, recalls)], rows)
    data = {"recall": table, "confusion": confusion, "protocol": scores.get("protocol")}
    return Section("classes", "By class", "classes.html", data, covered_by_epsilon=False, mismatch=mismatch)


def chosen(group: Mapping[str, Any], names: Sequence[str]) -> tuple[str, np.ndarray] | None:
    """The classifier whose confusion matrix is shown, and its counts ``[K, K]`` (rows are true classes); None if there
    is none."""
    for classifier in (*PREFERRED, *group):
        counts = np.asarray(group.get(classifier, {}).get("confusion", ()), float)
        if counts.shape == (len(names), len(names)):
            return classifier, counts
    return None


def confusion_of(gen2real: Mapping[str, Any], names: Sequence[str]) -> Confusion | None:
    """The confusion matrix of the preferred classifier of gen2real; None if none was recorded."""
    found = chosen(gen2real, names)
    if found is None:
        return None
    classifier, counts = found
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    title = f"Confusion, gen2real {title_of(classifier)}"
    shown = Confusion(title, names, shares.tolist(), max(map(len, names)) <= 2)
    if len(names) <= MAX_NUMBERS:
        return shown
    pixels = np.rint(255 * (1.0 - shares)).astype(np.uint8)[..., None]
    alt = f"{title}: {len(names)} by {len(names)} squares, darker where more images fall"
    return shown._replace(picture=picture(pixels, alt, width=600), worst=_worst(shares, names))


def _worst(shares: np.ndarray, names: Sequence[str]) -> Table:
    """The table of the most frequent confusions; ``shares`` is the confusion matrix whose rows sum to 1."""
    off = shares - np.diag(np.diag(shares))
    order = np.argsort(off, axis=None)[::-1][:WORST]
    pairs = [divmod(int(i), len(names)) for i in order if off.flat[i] > 0]
    return Table(["True class", "Taken for", "%"], [[names[i], names[j], percent(off[i, j])] for i, j in pairs])


def balance_section(
    real2gen: Mapping[str, Any], names: Sequence[str], mismatch: Mismatch | None, command: str
) -> Section:
    """The section that compares the labels for which images were generated with a classifier's predictions for them.

    The classifier was trained on real images.

    Args:
      real2gen: the part ``real2gen`` of ``private/scores.json``; empty if it was not computed.
      names: names of the classes.
      mismatch: set if the scores are of another generator; otherwise None.
      command: the command that computes the scores.
    """
    title = "Balance of generated classes"
    found = chosen(real2gen, names)
    if found is None:
        return missing("balance", "Balance", "It is not known yet.", command, title=title)
    classifier, counts = found
    total = counts.sum()
    num_test = real2gen[classifier].get("num_test", int(total))  # the counts are summed over the seeds
    widest = max(counts.sum(axis=0).max(), counts.sum(axis=1).max()) / total
    rows: list[list[str | Cell]] = []
    for k, name in enumerate(names):
        asked, seen, right = counts[k].sum() / total, counts[:, k].sum() / total, counts[k, k]
        low, high = interval(seen, num_test)
        bar = Bar(float(asked / widest), float(seen / widest))
        correct = Cell(percent(seen), f"95%: {100 * low:.1f} to {100 * high:.1f}", bar)
        rows.append([name, percent(asked), percent(right / max(counts[k].sum(), 1.0)), correct])
    shares = Table(["Class", "Asked for, %", "Agrees, %", "Seen, %"], rows)
    data = {"classifier": title_of(classifier), "shares": shares}
    return Section("balance", "Balance", "balance.html", data, title, covered_by_epsilon=False, mismatch=mismatch)
