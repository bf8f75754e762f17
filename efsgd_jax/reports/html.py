"""HTML that is escaped unless it says otherwise; a page is one file without scripts, links to other files or a net."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from efsgd_jax.formatting import format_epsilon
from efsgd_jax.reports.style import STYLE

# A browser then fetches and runs nothing, whatever a class or a configuration is called.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# Columns that a phone has room for.
FITS = 4


class Markup(str):
    """Text that is HTML already; any other is escaped where it is put in."""

    __slots__ = ()


Child = str | float | None


def text(value: Child) -> Markup:
    """``value`` as HTML text; None is nothing."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(str(value)))


def tag(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """``<name ...>children</name>``; ``class_`` is ``class``, ``aria_label`` is ``aria-label``, None is left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("img", "meta"):
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    return Markup("".join(text(child) for child in children))


def paragraph(*children: Child, class_: str | None = None) -> Markup:
    return tag("p", *children, class_=class_)


def code(value: str) -> Markup:
    return tag("code", value)


def bullets(items: Sequence[Child]) -> Markup:
    return tag("ul", *(tag("li", item) for item in items))


def section(anchor: str, title: str, *children: Child, covered: bool = True) -> Markup:
    """A card with a heading that the contents link to; a badge if no epsilon covers what is in it."""
    badge = None if covered else tag("small", "not covered by epsilon", class_="badge")
    return tag("section", tag("h2", title, badge), *children, id=anchor, class_="card")


def definitions(values: Mapping[str, Child], class_: str = "facts") -> Markup:
    """Names and values, in as many columns as fit."""
    rows = (tag("div", tag("dt", key), tag("dd", value)) for key, value in values.items())
    return tag("dl", *rows, class_=class_)


def table(head: Sequence[str], rows: Sequence[Sequence[Child]], *, caption: Child = None) -> Markup:
    """The first column names the row. On a narrow screen a table that is wide, or has prose in it, becomes a list of
    blocks, one for each row, its cells named by ``head``."""
    classes = ["words" if any(_is_prose(row[i]) for row in rows) else None for i in range(len(head))]
    names = (tag("th", h, scope="col", class_=c) for h, c in zip(head, classes, strict=True))
    top = tag("thead", tag("tr", *names))
    body = [
        tag("tr", tag("th", row[0], scope="row"),
            *(tag("td", cell, data_label=h, class_=c or _whole(cell))
              for h, c, cell in zip(head[1:], classes[1:], row[1:], strict=True)))
        for row in rows
    ]  # fmt: skip
    titled = tag("caption", caption) if caption else None
    return tag(
        "table", titled, top, tag("tbody", *body), class_="stacking" if len(head) > FITS or any(classes[1:]) else None
    )


def _is_prose(cell: Child) -> bool:
    return isinstance(cell, str) and not isinstance(cell, Markup) and len(cell) > 24


def _whole(cell: Child) -> str | None:
    """Numbers such as 1e-05 or 85.5 ± 1.2 are not to be broken."""
    return "whole" if not isinstance(cell, Markup) and len(str(cell)) <= 12 else None


def number(value: Any, digits: int = 4) -> str:
    """Significant digits; a dash for what is missing."""
    if value is None:
        return "–"
    value = float(value)
    return f"{value:.{digits}g}" if math.isfinite(value) else "∞"


def epsilon_shown(value: Any) -> str:
    """An epsilon that is claimed or spent, rounded up; a dash for what is missing."""
    if value is None:
        return "–"
    return format_epsilon(float(value)) if math.isfinite(float(value)) else "∞"


def percent(value: Any) -> str:
    return "–" if value is None else f"{100 * float(value):.1f}"


def document(title: str, header: Child, sections: Mapping[str, Markup], footer: Child) -> str:
    """A whole page.

    Args:
      title: of the window.
      header: above the contents.
      sections: each with the name under which the contents list it.
      footer: below.
    """
    links = (tag("a", name, href=f"#{_anchor_of(part)}") for name, part in sections.items())
    contents = tag("nav", *links, aria_label="Contents") if len(sections) > 3 else None
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    body = tag("body", tag("header", header), contents, tag("main", *sections.values()), tag("footer", footer))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _anchor_of(part: str) -> str:
    return part.split('id="', 1)[1].split('"', 1)[0]
