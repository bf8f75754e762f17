"""The columns of a table: names, and the values that each may have. All is public, and nothing is read off rows."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from efsgd_jax.errors import UserError

# Largest number of columns, and of values of a column.
MAX_COLUMNS, MAX_VALUES = 256, 256
# Values that are not declared which a message names.
NAMED = 3


class Columns(NamedTuple):
    """Names and values of the columns, in the order of the chain: put columns that go together side by side.

    Attributes:
      names: names of the columns.
      values: for each column, its values as text, or the names of its intervals.
      edges: for each column, the edges ``e_0 < ... < e_q`` of the intervals ``[e_i, e_i+1)`` of numbers; None for a
        column of categories. Numbers below the first edge and above the last belong to the first and the last interval.

    Examples:
      >>> columns = Columns.declared({"sex": ["f", "m"], "age": {"edges": [0, 18, 65, 120]}})
      >>> columns.values
      (('f', 'm'), ('0 to 18', '18 to 65', '65 to 120'))
      >>> columns.encode({"sex": ["m"], "age": [18]}).tolist()
      [[1, 1]]
      >>> columns.decode(np.array([[0, 2]]))
      {'sex': ['f'], 'age': ['65 to 120']}
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    edges: tuple[tuple[float, ...] | None, ...]

    @classmethod
    def declared(cls, given: Mapping[str, Any]) -> "Columns":
        """Columns from a mapping: name -> list of values, or ``{"edges": [numbers that rise]}``.

        Raises:
          UserError: no column, too many of them or of values, values that are equal, or edges that do not rise.
        """
        if not isinstance(given, Mapping) or not given or len(given) > MAX_COLUMNS:
            raise UserError(f"a table has 1 to {MAX_COLUMNS} columns; declare each as a name and a list of its values")
        for name in given:
            if not isinstance(name, str) or not name:
                raise UserError(f"a column is named {name!r}; a name is text that is not empty")
        found = [_declared(name, column) for name, column in given.items()]
        return cls(tuple(given), tuple(v for v, _ in found), tuple(e for _, e in found))

    def encode(self, rows: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Indices of the values, int32 ``[N, D]``.

        Args:
          rows: for each column, N entries; other columns are ignored.

        Raises:
          UserError: a column is missing or has another length, or an entry is no declared value or no number.
        """
        lacking = [name for name in self.names if name not in rows]
        if lacking:
            raise UserError(
                f"the rows lack the column {lacking[0]!r}; they have {', '.join(map(repr, rows)) or 'none'}"
            )
        for name in self.names:
            if isinstance(rows[name], str):
                raise UserError(f"column {name!r} is one text; it is a list with an entry for each row")
        lengths = {len(rows[name]) for name in self.names}
        if len(lengths) > 1:
            raise UserError(
                f"the columns have {', '.join(map(str, sorted(lengths)))} entries; all have one for each row"
            )
        found = [_indices(n, rows[n], v, e) for n, v, e in zip(self.names, self.values, self.edges, strict=True)]
        return np.stack(found, axis=1).astype(np.int32)

    def decode(self, indices: np.ndarray) -> dict[str, list[str]]:
        """For each column, the values of indices ``[N, D]``."""
        return {
            name: [values[i] for i in indices[:, k]]
            for k, (name, values) in enumerate(zip(self.names, self.values, strict=True))
        }

    def as_declared(self) -> dict[str, Any]:
        """The mapping that ``declared`` takes."""
        return {
            name: list(values) if edges is None else {"edges": list(edges)}
            for name, values, edges in zip(self.names, self.values, self.edges, strict=True)
        }


def _declared(name: str, column: Any) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    edges = column.get("edges") if isinstance(column, Mapping) else None
    if edges is not None:
        if not isinstance(edges, Sequence) or not all(
            isinstance(e, int | float) and not isinstance(e, bool) and math.isfinite(e) for e in edges
        ):
            raise UserError(f"column {name!r}: the edges are {edges!r}; they are finite numbers")
        if len(edges) < 3 or any(a >= b for a, b in itertools.pairwise(edges)):
            raise UserError(f"column {name!r}: the edges are {edges!r}; they are at least 3 numbers that rise")
        values = tuple(f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges))
    elif isinstance(column, Sequence) and not isinstance(column, str) and len(column) > 1:
        values = tuple(map(str, column))
    else:
        raise UserError(
            f"column {name!r} is declared as {column!r}; it is a list of at least 2 values, or "
            '{"edges": [0, 18, 65]} for numbers'
        )
    if len(set(values)) < len(values) or len(values) > MAX_VALUES:
        raise UserError(f"column {name!r} has {len(values)} values; they are at most {MAX_VALUES}, and all different")
    return values, None if edges is None else tuple(map(float, edges))


def _indices(name: str, entries: Sequence[Any], values: tuple[str, ...], edges: tuple[float, ...] | None) -> np.ndarray:
    if edges is None:
        place = {value: i for i, value in enumerate(values)}
        found = np.array([place.get(str(entry), -1) for entry in entries], int)
        wrong, must = np.flatnonzero(found < 0), f"one of {', '.join(values[:10])}{' ...' * (len(values) > 10)}"
    else:
        numbers = np.array([_number(entry) for entry in entries])
        wrong, must = np.flatnonzero(np.isnan(numbers)), "a number"
        found = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(values) - 1)
    if len(wrong):
        shown = ", ".join(f"{entries[i]!r} in row {i + 1}" for i in wrong[:NAMED])
        raise UserError(
            f"column {name!r} has {len(wrong):,} entries that are not declared, such as {shown}; each is {must}. "
            "Declare them, or give missing entries a value of their own"
        )
    return found


def _number(entry: Any) -> float:
    try:
        return float(entry)
    except (TypeError, ValueError):
        return math.nan
