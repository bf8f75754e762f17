"""The sections of a run's page, as data for the templates."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Mismatch(NamedTuple):
    """A warning that recorded results are of another generator than the run's present one.

    Attributes:
      what: the results, such as "scores".
      command: the command that computes them again.
    """

    what: str
    command: str


class Section(NamedTuple):
    """A section of the page, which the table of contents links to.

    Attributes:
      anchor: id of the section in the page.
      name: name of the section in the table of contents.
      template: template of the section's body, a file in ``templates/``.
      data: the values that the template shows, under the name ``data``.
      title: heading of the section; "" for ``name``.
      covered_by_epsilon: whether epsilon covers the content of the section; if not, a badge says so.
      mismatch: set if the content is of another generator; otherwise None.
    """

    anchor: str
    name: str
    template: str
    data: Mapping[str, Any]
    title: str = ""
    covered_by_epsilon: bool = True
    mismatch: Mismatch | None = None


def missing(anchor: str, name: str, what: str, command: str, *, title: str = "") -> Section:
    """A section whose results were not computed yet. It shows the sentence ``what`` and the ``command`` to run."""
    return Section(anchor, name, "missing.html", {"what": what, "command": command}, title)
