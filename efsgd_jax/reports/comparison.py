"""``compare``: several runs in one table for each data set, and their privacy against their utility."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.anchors import Anchor, anchors_of
from efsgd_jax.files import atomic
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
from efsgd_jax.reports.html import Markup, bullets, document, join, paragraph, section, table, tag
from efsgd_jax.reports.plots import Point, tradeoff
from efsgd_jax.reports.scores import interval, not_covered

UNKNOWN = (math.nan, math.nan)
Table = tuple[str, list[str], list[list[str]]]


class Comparison(NamedTuple):
    """Where the page is, the tables as text, and one line for each run that could not be compared."""

    page: Path
    text: str
    problems: tuple[str, ...]


def compare(runs: Sequence[str | Path], *, out: str | Path = "compare.html") -> Comparison:
    """Compares runs, finished and scored, in a page for their owner.

    Runs on different data sets, and scores by different protocols or over different networks, share neither a table
    nor a column.

    Args:
      runs: their directories.
      out: the page.

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
    tables = [t for group in groups for t in _tables(group)]
    return Comparison(target, "\n\n".join(map(_as_text, tables)), tuple(problems))


def _tables(group: Sequence[Entry]) -> list[Table]:
    """The runs of one data set: without a protocol, then by each protocol."""
    cells = [{**privacy_cells(e), **score_cells(e.scores), **({"remark": e.remark} if e.remark else {})} for e in group]
    tables = [(_title(group[0]), *rows_of(cells))]
    for name in protocols_of(group):
        scored = [e for e in group if name in e.scores.get("protocols", {})]
        cells = [{**privacy_cells(e), **score_cells(e.scores["protocols"][name])} for e in scored]
        tables.append((f"{_title(group[0])}, by the protocol {name}", *rows_of(cells)))
    return tables


def _title(entry: Entry) -> str:
    spec = entry.released.spec
    return f"{entry.released.data_name}, {spec.image_size}×{spec.image_size}, {spec.num_classes} classes"


def _as_text(made: Table) -> str:
    title, head, rows = made
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *rest = zip(row, widths, strict=True)
        return "  ".join([f"{first[0]:{first[1]}}", *(f"{cell:>{w}}" for cell, w in rest)]).rstrip()

    return "\n".join([title, line(head), *map(line, rows)])


def _page(groups: Sequence[Sequence[Entry]], problems: Sequence[str]) -> str:
    sections = {_title(group[0]): _section(f"data-{i}", group) for i, group in enumerate(groups)}
    count = sum(map(len, groups))
    note = "This page is private: scores read real images, and no epsilon covers them or what is chosen by them."
    left_out = join(paragraph(tag("strong", "Left out:")), bullets(problems)) if problems else None
    header = join(
        tag("h1", f"{count} {'run' if count == 1 else 'runs'} compared"),
        paragraph(note, class_="notice"),
        tag("div", left_out, class_="notice bad") if problems else None,
    )
    return document("Runs compared", header, sections, paragraph("Made by efsgd_jax. ", note))


def _section(anchor: str, group: Sequence[Entry]) -> Markup:
    released = group[0].released
    anchors = anchors_of(str(released.config["data"]["name"]), released.spec.image_size, released.spec.channels)
    (title, head, rows), *by_protocol = _tables(group)
    return section(
        anchor,
        title,
        not_covered(),
        _plot(group, anchors, title),
        table(head, [_marked([f"{i}. {row[0]}", *row[1:]]) for i, row in enumerate(rows, 1)]),
        *(join(tag("h3", t), table(h, [_marked(row) for row in r])) for t, h, r in by_protocol),
        _references(anchors),
    )


def _marked(row: Sequence[str]) -> list[str]:
    return [tag("strong", cell, class_="warning") if cell == NOT_PRIVATE else cell for cell in row]


def _plot(group: Sequence[Entry], anchors: Sequence[Anchor], title: str) -> Markup | None:
    points = []
    for i, entry in enumerate(group, 1):
        found = entry.scores.get("gen2real", {}).get("cnn")
        if found:
            n = found.get("num_test")
            low, high = interval(found["accuracy"], n) if n else UNKNOWN
            privacy = entry.released.privacy
            epsilon = entry.released.epsilon
            points.append(
                Point(epsilon, 100 * found["accuracy"], (100 * low, 100 * high), str(i), privacy["guarantee"])
            )
    if not points:
        return paragraph("No run here has a gen2real score of a CNN to plot.", class_="notice")
    marks = [Point(a.epsilon, 100 * a.accuracy, UNKNOWN, _letter(i), False) for i, a in enumerate(anchors)]
    said = f"{title}: gen2real accuracy of a CNN against epsilon, {len(points)} runs and {len(marks)} published numbers"
    plot = tradeoff(points, marks, y_label="gen2real CNN, % of real test images", said=said)
    legend = "Numbers: runs, as in the table, with the 95% interval of the test images. "
    if not all(p.guarantee for p in points):
        legend += "Hollow: no guarantee. "
    if marks:
        legend += "Letters: published numbers, listed below; other classifiers and protocols."
    if any(math.isinf(p.epsilon) for p in points):
        legend += " At the right edge: trained without noise."
    return tag("figure", plot, paragraph(legend, class_="note"))


def _letter(i: int) -> str:
    return chr(ord("A") + i)


def _references(anchors: Sequence[Anchor]) -> Markup | None:
    if not anchors:
        return None
    rows = [
        [f"{_letter(i)}. {a.method}", f"{a.epsilon:g}", f"{100 * a.accuracy:.1f}", f"{a.paper}: {a.protocol}"]
        for i, a in enumerate(anchors)
    ]
    head = ["Method", "epsilon", "CNN, %", "Source and protocol"]
    return join(tag("h3", "Published reference points"), table(head, rows))
