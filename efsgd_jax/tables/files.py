"""A table's files: rows as CSV, declared columns as JSON, and what is published of a fit."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.runs.statement import detection_bound
from efsgd_jax.tables.table import Table

# What ``publish`` writes.
MODEL, ROWS, PRIVACY = "table.json", "synthetic.csv", "PRIVACY.md"


def read_rows(path: str | Path) -> dict[str, list[str]]:
    """The columns of a CSV file in UTF-8 whose first line has their names.

    Raises:
      UserError: the file cannot be read, a name is repeated, or a line has another number of entries.
    """
    try:
        with Path(path).expanduser().open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except (OSError, csv.Error) as error:
        raise UserError(f"cannot read {path} ({error}); give a CSV file with a first line of names") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    if not lines:
        raise UserError(f"{path} is empty; its first line has the names of the columns")
    names, rows = lines[0], lines[1:]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path} has two columns {repeated[0]!r}; give each a name of its own")
    for i, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise UserError(f"line {i} of {path} has {len(row)} entries, and there are {len(names)} columns")
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


def write_rows(path: Path, rows: Mapping[str, Sequence[str]]) -> None:
    """Writes columns as a CSV file in UTF-8 whose first line has their names."""
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))


def read_columns(path: str | Path, example: str = '{"sex": ["f", "m"]}') -> dict[str, Any]:
    """The declared columns: a JSON object as ``Columns.declared`` takes; ``example`` is one that errors show.

    Raises:
      UserError: the file cannot be read, or is no JSON object.
    """
    try:
        found = json.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); give a JSON file such as {example}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is no JSON object; give one such as {example}")
    return found


def check_new(directory: str | Path) -> Path:
    """The path; raises ``UserError`` if the directory has a table already."""
    directory = Path(directory).expanduser()
    if (directory / MODEL).exists():
        raise UserError(f"{directory} has a table already; name a new directory")
    return directory


def publish(table: Table, rows: Mapping[str, Sequence[str]], directory: str | Path) -> list[Path]:
    """Writes the model, synthetic rows and a statement of the guarantee, all of which may be published.

    Raises:
      UserError: the directory has a table already.
    """
    directory = check_new(directory)
    paths = [table.write(directory / MODEL)]
    write_rows(directory / ROWS, rows)
    with atomic(directory / PRIVACY) as temporary:
        temporary.write_text(statement_of(table), encoding="utf-8")
    return [*paths, directory / ROWS, directory / PRIVACY]


def statement_of(table: Table) -> str:
    """What a table guarantees, in words that can be quoted."""
    epsilon = format_epsilon(table.epsilon)
    bound = 100 * detection_bound(table.epsilon, table.delta)
    private = f"({epsilon}, {table.delta:g})-differential privacy"
    return (
        f"# {private}\n\n"
        f"The rows were drawn from a model that was trained with {private}. The guarantee is for one row of the table, "
        "which is replaced by a blank one that contributes nothing. An attack that takes 1% of the rows that were not "
        f"used for used ones recognises at most {math.ceil(10 * bound) / 10:.1f}% of those that were. A person with "
        "several rows is protected less. If images or other tables of the same persons are published too, their "
        "epsilons and deltas add up. What is true of the table as a whole is not hidden.\n\n"
        f"Public, and not protected: the number of rows, {table.dataset_size:,}; names, values and intervals of the "
        f"columns {', '.join(table.columns.names)}. Choices made by looking at the rows are not covered.\n"
    )
