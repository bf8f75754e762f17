"""Mutants: deliberate faults, each with the audit game that must detect it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

from efsgd_jax.audit.games import Playable

Patches = dict[str, Callable[..., Any]]


class Mutant(NamedTuple):
    """A deliberate fault and the audit game that must detect it.

    Attributes:
      name: name of the fault.
      game: the audit game on the correct code, in which no violation may be found.
      changes: replacement values for fields of the game: errors of the calling code.
      patches: replacements for library functions, by full dotted name: errors of the library.
    """

    name: str
    game: Any
    changes: dict[str, Any] = {}  # noqa: RUF012  never written to
    patches: Patches = {}  # noqa: RUF012

    @contextlib.contextmanager
    def broken(self) -> Iterator[Playable]:
        """Applies the fault within the block, and yields the game with the fault; play it inside of the block."""
        with contextlib.ExitStack() as stack:
            for target, replacement in self.patches.items():
                stack.enter_context(mock.patch(target, replacement))
            yield dataclasses.replace(self.game, name=self.name, **self.changes)
