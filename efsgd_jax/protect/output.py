"""What a protection writes beside its images or rows: ``PROTECTION.md``, and a mark by which a release refuses them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.files import PROTECTION_MARK, write_json, write_text
from efsgd_jax.runs.writers import WRITERS, Info

STATEMENT = "PROTECTION.md"
# The sentence that every statement begins with.
NO_GUARANTEE = "This is not differential privacy, and there is no epsilon."


class Measured(NamedTuple):
    """One table of the attack report.

    Attributes:
      title: what was attacked, and how the numbers were measured.
      columns: the names of the columns; the first names the attack of a row.
      rows: for each row, as many entries as there are columns; numbers are shown with three digits.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


class Protection(NamedTuple):
    """What ``PROTECTION.md`` says of one protection.

    Attributes:
      kind: the name of the protection, as in ``efsgd protect KIND``.
      summary: one or two sentences: what was done to which data.
      resists: whom it is made against, one sentence each.
      breaks: what breaks it, one sentence each; never empty.
      settings: the options that were used, by name.
      measured: the attack report, at least one table.
    """

    kind: str
    summary: str
    resists: Sequence[str]
    breaks: Sequence[str]
    settings: Mapping[str, str | float]
    measured: Sequence[Measured]


def statement_of(protection: Protection) -> str:
    """The text of ``PROTECTION.md``.

    Raises:
      ValueError: nothing is said of what breaks the protection, or nothing was measured.

    Examples:
      >>> table = Measured("A classifier", ("attack", "accuracy"), [("none", 0.123456)])
      >>> text = statement_of(Protection("views", "Views were bent.", ["a copy"], ["a camera"], {}, [table]))
      >>> text.splitlines()[-1]
      '| none | 0.123 |'
    """
    if not protection.breaks or not protection.measured:
        raise ValueError("a protection says what breaks it, and has an attack report")

    def listed(sentences: Sequence[str]) -> str:
        return "".join(f"- {sentence}\n" for sentence in sentences)

    parts = [
        f"# Protected by `{protection.kind}`\n\n{NO_GUARANTEE} {protection.summary}\n",
        f"## What it is made to resist\n\n{listed(protection.resists)}",
        f"## What breaks it\n\n{listed(protection.breaks)}",
        f"## Settings\n\n{listed([f'{name}: {_entry(x)}' for name, x in protection.settings.items()] or ['none'])}",
        *(f"## Measured: {table.title}\n\n{_table(table)}" for table in protection.measured),
    ]
    return "\n".join(parts)


def write_protection(directory: str | Path, protection: Protection) -> list[Path]:
    """Writes ``PROTECTION.md`` and the mark into ``directory``; returns their paths.

    The mark is written first, so that no directory ever has protected data without it. Call this, or
    ``mark_directory``, before anything else is written there.
    """
    mark = mark_directory(directory, protection.kind)
    write_text(Path(directory) / STATEMENT, statement_of(protection))
    return [mark, Path(directory) / STATEMENT]


def mark_directory(directory: str | Path, kind: str) -> Path:
    """Marks a directory as written by a protection, so that ``efsgd release`` refuses it by name."""
    path = Path(directory) / PROTECTION_MARK
    write_json(path, {"protection": kind, "guarantee": "none"})
    return path


def write_images(directory: str | Path, images: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes images as ``samples.npz``, ``grid.png`` and ``png/CLASS/``; pixels are kept exactly.

    Args:
      directory: an existing directory that is marked.
      images: uint8 ``[N, S, S, C]``.
      labels: int ``[N]``, in any order.
      class_names: the name of each label.

    Raises:
      UserError: the files cannot be written.
    """
    if not (Path(directory) / PROTECTION_MARK).is_file():
        raise UserError(f"{directory} is not marked as protected; mark it before anything is written there")
    order = np.argsort(labels, kind="stable")
    info = Info(np.asarray(labels)[order].astype(np.int32), images.shape[1:], tuple(class_names))
    # The single file comes last: a run that was killed while it wrote pictures has no samples.npz.
    for name in ("png", "grid", "npz"):
        with WRITERS[name](Path(directory), info) as add:
            add(images[order], info.labels)


def _table(table: Measured) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *([_entry(x) for x in row] for row in table.rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _entry(x: str | float) -> str:
    return x if isinstance(x, str) else f"{x:.3g}"
