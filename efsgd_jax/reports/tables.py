"""Tables as data, for the macro ``table`` in ``templates/macros.html``."""

from collections.abc import Sequence
from typing import NamedTuple

# Largest number of columns that fit on the screen of a phone.
FITS = 4
# Largest number of letters of the names of rows with which a table of ``FITS`` columns fits.
SHORT = 8
# Text of more characters than this is prose, which is aligned to the left.
PROSE = 24


class Bar(NamedTuple):
    """A bar in a cell: filled up to ``seen``, with a mark at ``asked``; both relative to the longest bar, 0 to 1."""

    asked: float
    seen: float


class Cell(NamedTuple):
    """A cell with more content than plain text.

    Attributes:
      text: text of the cell.
      small: small print below the text; "" for none.
      bar: bar below the small print; None for none.
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
      rows: the rows, each with one cell for each column.
      caption: caption above the table; "" for none.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""

    @property
    def prose(self) -> list[bool]:
        """For each column, whether one of its cells is prose."""
        return [
            any(isinstance(row[i], str) and len(row[i]) > PROSE for row in self.rows) for i in range(len(self.head))
        ]

    @property
    def stacking(self) -> bool:
        """Whether narrow screens show each row as a block, because the table has many columns, long names or prose."""
        long_names = any(isinstance(row[0], str) and len(row[0]) > SHORT for row in self.rows)
        return len(self.head) > FITS or any(self.prose[1:]) or (long_names and len(self.head) == FITS)
