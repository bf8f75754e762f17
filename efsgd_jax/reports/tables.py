"""Tables as data: what ``table`` in ``templates/macros.html`` shows."""

from collections.abc import Sequence
from typing import NamedTuple

# Columns that a phone has room for.
FITS = 4
# Longer text than this is prose, which is aligned to the left.
PROSE = 24


class Bar(NamedTuple):
    """Shares of the longest bar, 0 to 1: the bar is filled up to ``seen``, a mark is at ``asked``."""

    asked: float
    seen: float


class Cell(NamedTuple):
    """A cell with more in it than plain text.

    Attributes:
      text: what the cell says.
      small: in small print below it, or "".
      bar: below that, or None.
      warning: whether the text is shown as a warning.
    """

    text: str
    small: str = ""
    bar: Bar | None = None
    warning: bool = False


class Table(NamedTuple):
    """A table whose first column names the rows.

    Attributes:
      head: names of the columns.
      rows: one cell for each column.
      caption: above the table, or "".
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""

    @property
    def prose(self) -> list[bool]:
        """Of each column, whether there is prose in it."""
        return [
            any(isinstance(row[i], str) and len(row[i]) > PROSE for row in self.rows) for i in range(len(self.head))
        ]

    @property
    def stacking(self) -> bool:
        """Whether a narrow screen shows a list of blocks instead, one for each row: the table is wide, or has prose."""
        return len(self.head) > FITS or any(self.prose[1:])
