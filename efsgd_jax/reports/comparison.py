"""``compare``: a page that compares several runs: a table for each data set, and a plot of utility against epsilon."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.anchors import Anchor, anchors_of
from efsgd_jax.files import atomic
from efsgd_jax.reports.differing import differing
from efsgd_jax.reports.entries import (
    NOT_PRIVATE,
    Entry,
    by_data,
    privacy_cells,
    protocols_of,
    read_entries,
    rows_of,
    score_cells,
)
from efsgd_jax.reports.images import Picture, picture
from efsgd_jax.reports.plots import Point, tradeoff
from efsgd_jax.reports.render import render
from efsgd_jax.reports.scores import interval, leading
from efsgd_jax.reports.tables import Cell, Table
from efsgd_jax.runs.release import public_config

# Largest width of a grid in CSS pixels.
WIDTH = 360
# How the remarks begin that say how scores differ from those of a protocol's paper.
DIFFERENCES = ("differs:", "NOT ")
# An interval that is not known, which a plot leaves out.
UNKNOWN = (math.nan, math.nan)


class Titled(NamedTuple):
    """A table of runs as text cells, with a title that names the data set and the protocol, and remarks below it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    remarks: list[str]


class Comparison(NamedTuple):
    """The result of ``compare``.

    Attributes:
      page: path of the page.
      text: the tables, and the settings that differ, as text.
      problems: a line for each run that could not be read.
    """

    page: Path
    text: str
    problems: tuple[str, ...]


def compare(runs: Sequence[str | Path], *, out: str | Path = "compare.html") -> Comparison:
    """Compares finished runs in a page for their owner.

    Runs on different data sets are in different tables, as are scores by different protocols. FIDs over the
    features of different networks are in different columns.

    Args:
      runs: directories of the runs.
      out: path of the page.

    Raises:
      UserError: none of the runs can be read, or the page cannot be written.

    Formal guarantees:
      None: scores read real images and are not covered by the runs' epsilons. The page is for its owner only.
    """
    target = Path(out).expanduser()
    if target.is_dir():
        raise UserError(f"{target} is a directory; name a file, such as {target / 'compare.html'}")
    entries, problems = read_entries(runs)
    if not entries:
        raise UserError("nothing to compare: " + "; ".join(problems))
    groups = by_data(entries)
    with atomic(target, private=True) as temporary:
        temporary.write_text(_page(groups, problems), encoding="utf-8")
    tables = [t for group in groups for t in (*_tables(group), *_settings(group))]
    return Comparison(target, "\n\n".join(map(_as_text, tables)), tuple(problems))


def _differing(group: Sequence[Entry]) -> Table | None:
    return differing([public_config(entry.released.config) for entry in group])


def _settings(group: Sequence[Entry]) -> list[Titled]:
    """The settings that differ between the runs on one data set, as a table of text; none if there are none."""
    found = _differing(group)
    if found is None:
        return []
    names = [f"{i}. {entry.name}" for i, entry in enumerate(group, 1)]
    rows = [[str(cell) for cell in row] for row in found.rows]
    return [Titled(f"{_title(group[0])}, settings that differ", ["Setting", *names], rows, [])]


def _tables(group: Sequence[Entry]) -> list[Titled]:
    """The tables of the runs on one data set: scores without a protocol, then a table for each protocol.

    The first table has all runs, with the scores of a protocol, which a remark names, for those that have no others.
    Where none has scores without a protocol, it is that of the first protocol.
    """
    protocols, tables = protocols_of(group), []
    if not protocols or any(score_cells(e.scores) for e in group):
        tables.append(_table(group, _title(group[0]), [leading(e.scores) for e in group]))
    for name in protocols:
        scored = [e for e in group if not tables or name in e.scores.get("protocols", {})]
        of_protocol = [e.scores.get("protocols", {}).get(name, {}) for e in scored]
        tables.append(_table(scored, f"{_title(group[0])}, by the protocol {name}", of_protocol))
    return tables


def _table(entries: Sequence[Entry], title: str, scores: Sequence[Mapping[str, Any]]) -> Titled:
    """A row for each run; remarks of several runs are below the table once."""
    borrowed = [f"by {found['protocol']}" if "protocol" in found else "" for found in scores]
    said = ["; ".join(filter(None, (e.remark, of))) for e, of in zip(entries, borrowed, strict=True)]
    remarks = [{"remark": remark} if remark else {} for remark in said]
    cells = [
        {**privacy_cells(e), **score_cells(found), **remark}
        for e, found, remark in zip(entries, scores, remarks, strict=True)
    ]
    below = dict.fromkeys(line for found in scores for line in found.get("remarks", ()) if found.get("gen2real"))
    return Titled(title, *rows_of(cells), [line for line in below if line.startswith(DIFFERENCES)])


def _title(entry: Entry) -> str:
    spec = entry.released.spec
    return f"{entry.released.data_name}, {spec.image_size}×{spec.image_size}, {spec.num_classes} classes"


def _as_text(made: Titled) -> str:
    title, head, rows, remarks = made
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *rest = zip(row, widths, strict=True)
        return "  ".join([f"{first[0]:{first[1]}}", *(f"{cell:>{w}}" for cell, w in rest)]).rstrip()

    return "\n".join([title, line(head), *map(line, rows), *remarks])


def _page(groups: Sequence[Sequence[Entry]], problems: Sequence[str]) -> str:
    return render(
        "compare.html",
        title="Runs compared",
        num_runs=sum(map(len, groups)),
        problems=problems,
        sections=[_section(f"data-{i}", group) for i, group in enumerate(groups)],
    )


def _section(anchor: str, group: Sequence[Entry]) -> dict[str, Any]:
    """The part of the page about the runs on one data set."""
    released = group[0].released
    anchors = anchors_of(str(released.config["data"]["name"]), released.spec.image_size, released.spec.channels)
    first, *by_protocol = _tables(group)
    numbered = [[f"{i}. {row[0]}", *row[1:]] for i, row in enumerate(first.rows, 1)]
    return {
        "anchor": anchor,
        "name": first.title,
        "plot": _plot(group, anchors, _title(group[0])),
        "runs": _marked(first.head, numbered),
        "remarks": first.remarks,
        "figures": [(f"{i}. {entry.name}", _grid(entry)) for i, entry in enumerate(group, 1)],
        "settings": _differing(group),
        "protocols": [{"title": t.title, "runs": _marked(t.head, t.rows), "remarks": t.remarks} for t in by_protocol],
        "published": _published(anchors),
    }


def _grid(entry: Entry) -> Picture:
    """The grid of generated images that a run has released."""
    path = entry.released.directory.samples
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); restore it, or train the run again") from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return picture(pixels, f"generated images of {entry.name}, a row for each class", width=WIDTH)


def _marked(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table in which runs without a guarantee are marked by a warning."""
    return Table(head, [[Cell(c, warning=True) if c == NOT_PRIVATE else c for c in row] for row in rows])


def _plot(group: Sequence[Entry], anchors: Sequence[Anchor], title: str) -> dict[str, Any] | None:
    """The plot of accuracy against epsilon and the entries of its legend; None if no run has a score to plot."""
    points = []
    for i, entry in enumerate(group, 1):
        of_protocol = entry.scores.get("protocols", {}).get(PLOTTED, {})
        found = of_protocol.get("gen2real", {}).get("cnn") or entry.scores.get("gen2real", {}).get("cnn")
        if found:
            n = found.get("num_test")
            low, high = interval(found["accuracy"], n) if n else UNKNOWN
            privacy = entry.released.privacy
            epsilon = entry.released.epsilon
            points.append(
                Point(epsilon, 100 * found["accuracy"], (100 * low, 100 * high), str(i), privacy["guarantee"])
            )
    if not points:
        return None
    marks = [Point(a.epsilon, 100 * a.accuracy, UNKNOWN, _letter(i), False) for i, a in enumerate(anchors)]
    said = f"{title}: gen2real accuracy of a CNN against epsilon, {len(points)} runs and {len(marks)} published numbers"
    return {
        "svg": tradeoff(points, marks, y_label="gen2real CNN, % of real test images", said=said),
        "hollow": not all(p.guarantee for p in points),
        "published": bool(marks),
        "noiseless": any(math.isinf(p.epsilon) for p in points),
    }


# The protocol whose score is plotted where a run has one: most published numbers are by something like it.
PLOTTED = "dpac"


def _letter(i: int) -> str:
    """The letter that stands for published number i in the plot and in the table."""
    return chr(ord("A") + i)


def _published(anchors: Sequence[Anchor]) -> Table | None:
    if not anchors:
        return None
    rows = [
        [f"{_letter(i)}. {a.method}", f"{a.epsilon:g}", f"{100 * a.accuracy:.1f}", f"{a.paper}: {a.protocol}"]
        for i, a in enumerate(anchors)
    ]
    return Table(["Method", "epsilon", "CNN, %", "Source and protocol"], rows)
