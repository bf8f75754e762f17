"""The sections of a run's page as data."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Mismatch(NamedTuple):
    """Something on record is of another generator than the run's: ``what`` it is, and the ``command`` that makes it."""

    what: str
    command: str


class Section(NamedTuple):
    """A card with a heading that the contents link to.

    Attributes:
      anchor: its id in the page.
      name: in the contents.
      template: of its body, a file in ``templates/``.
      data: what the template shows; in the template it is ``data``.
      title: the heading, where it is not ``name``.
      covered: whether the epsilon covers what is in it; if not, a badge says so.
      mismatch: what it shows is of another generator.
    """

    anchor: str
    name: str
    template: str
    data: Mapping[str, Any]
    title: str = ""
    covered: bool = True
    mismatch: Mismatch | None = None


def missing(anchor: str, name: str, what: str, command: str, *, title: str = "") -> Section:
    """A section for which nothing is on record: ``what`` is missing, and the ``command`` that makes it."""
    return Section(anchor, name, "missing.html", {"what": what, "command": command}, title)
