"""Numeric rows of a table, scaled by declared ranges, with a label for each row."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from efsgd_jax.errors import UserError

# Declared labels that a message names.
NAMED = 5
# A range is at least this part of its largest end, and at least the second number: in a narrower one, floats are so far
# apart that a value which is moved may be written as it was.
LEAST_PART, LEAST_WIDTH = 2.0**-30, 1e-290
# Characters of a declaration that a message shows.
SHOWN = 80


class Rows(NamedTuple):
    """The rows of a table.

    Attributes:
      names: names of the numeric columns.
      low: float64 ``[D]``, the declared smallest value of each column.
      high: float64 ``[D]``, the declared largest value.
      cells: float64 ``[N, D]`` in [0, 1]: the values, scaled from ``low..high``.
      label_name: name of the label's column, or "" without labels.
      label_values: the values of labels.
      labels: int64 ``[N]``, indices of ``label_values``; zeros without labels.
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    cells: np.ndarray
    label_name: str
    label_values: tuple[str, ...]
    labels: np.ndarray

    def table(self, cells: np.ndarray, labels: np.ndarray) -> dict[str, list[str]]:
        """Columns of text, as ``csv`` writes them, of other cells ``[n, D]`` in [0, 1] and labels ``[n]``."""
        values = self.low + cells * (self.high - self.low)
        found = {name: [repr(float(x)) for x in values[:, i]] for i, name in enumerate(self.names)}
        if self.label_name:
            found[self.label_name] = [self.label_values[i] for i in labels]
        return found


def read_rows(columns: Mapping[str, Sequence[str]], declared: Mapping[str, Any]) -> Rows:
    """Rows from columns of text and what the owner declares of them.

    Args:
      columns: for each column, N entries of text; columns that are not declared are left out.
      declared: name -> ``{"range": [low, high]}`` for numbers; at most one name -> list of values, which is the label.
        Declare what may occur, not what does occur.

    Raises:
      UserError: a column is missing, an entry is no number or out of its range, a range is too wide or too narrow
        for floats, a label is not declared, there is no
        numeric column, the values of the label are none or one is repeated, or there are fewer than two rows.

    Examples:
      >>> columns = {"age": ["30", "60"], "ill": ["no", "yes"]}
      >>> rows = read_rows(columns, {"age": {"range": [0, 120]}, "ill": ["no", "yes"]})
      >>> rows.cells.tolist(), rows.labels.tolist()
      ([[0.25], [0.5]], [0, 1])
    """
    for name in declared:
        if name not in columns:
            raise UserError(f"the table lacks the column {name!r}; it has {', '.join(map(repr, columns)) or 'none'}")
    listed = [name for name, what in declared.items() if isinstance(what, list)]
    if len(listed) > 1:
        raise UserError(
            f"{', '.join(map(repr, listed))} are lists of values, and only the label may be one; give other columns as "
            'numbers, such as {"smokes": {"range": [0, 1]}}, or use `efsgd table`, which is for categories'
        )
    lengths = {len(columns[name]) for name in declared}
    if len(lengths) > 1:
        raise UserError(f"the columns have {', '.join(map(str, sorted(lengths)))} entries; all have one for each row")
    numeric = {name: _range(name, what) for name, what in declared.items() if name not in listed}
    if not numeric:
        raise UserError('no numeric column is declared; declare one, such as {"age": {"range": [0, 120]}}')
    low, high = (np.array([limits[i] for limits in numeric.values()]) for i in (0, 1))
    values = np.stack([_numbers(name, columns[name], limits) for name, limits in numeric.items()], axis=1)
    if len(values) < 2:
        raise UserError(f"the table has {len(values)} rows; at least 2 are needed, to interpolate between them")
    label = listed[0] if listed else ""
    kinds = _kinds(label, declared[label]) if label else ("",)
    return Rows(tuple(numeric), low, high, (values - low) / (high - low), label, kinds, _labels(columns, label, kinds))


def _range(name: str, what: Any) -> tuple[float, float]:
    limits = what.get("range") if isinstance(what, Mapping) else None
    numbers = limits if isinstance(limits, list) else []
    plain = all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
    said = f"column {name!r} is declared as {json.dumps(what)[:SHOWN]}"
    if not (len(numbers) == 2 and plain and numbers[0] < numbers[1]):
        raise UserError(f'{said}; give {{"range": [low, high]}} with low below high')
    try:
        low, high = float(numbers[0]), float(numbers[1])
    except OverflowError:  # an integer above the largest float
        low, high = -math.inf, math.inf
    width, largest = high - low, max(abs(low), abs(high))
    if not math.isfinite(width):
        raise UserError(f"{said}; its ends and their difference must be below 1.8e308: give the values that may occur")
    if width < max(LEAST_PART * largest, LEAST_WIDTH):
        raise UserError(
            f"{said}, which is too narrow for numbers as large as {largest:g}: rounding would write values as they "
            "were; subtract a public number from the column and its range, or use larger units"
            if width >= LEAST_WIDTH
            else f"{said}, which is narrower than {LEAST_WIDTH:g}; use smaller units"
        )
    return low, high


def _numbers(name: str, entries: Sequence[str], limits: tuple[float, float]) -> np.ndarray:
    found = np.empty(len(entries))
    for i, entry in enumerate(entries):
        try:
            found[i] = float(entry)
        except ValueError:
            found[i] = math.nan
        if not limits[0] <= found[i] <= limits[1]:
            raise UserError(
                f"column {name!r} has {str(entry)[:40]!r} in row {i + 1}; declared are numbers from {limits[0]:g} to "
                f"{limits[1]:g}: declare what may occur, or leave the row out"
            )
    return found


def _kinds(label: str, values: Sequence[Any]) -> tuple[str, ...]:
    kinds = tuple(map(str, values))
    if not kinds:
        raise UserError(f"column {label!r} is declared as [], without a value; list the values that may occur")
    repeated = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    if repeated:
        raise UserError(f"column {label!r} is declared with {repeated[0]!r} twice; list each value once")
    return kinds


def _labels(columns: Mapping[str, Sequence[str]], label: str, kinds: tuple[str, ...]) -> np.ndarray:
    if not label:
        return np.zeros(len(next(iter(columns.values()))), np.int64)
    index = {kind: i for i, kind in enumerate(kinds)}
    for i, entry in enumerate(columns[label]):
        if entry not in index:
            some = ", ".join(map(repr, kinds[:NAMED]))
            raise UserError(f"column {label!r} has {str(entry)[:40]!r} in row {i + 1}; declared are {some}")
    return np.array([index[entry] for entry in columns[label]], np.int64)
