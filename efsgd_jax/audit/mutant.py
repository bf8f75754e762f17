"""A fault and the game that shows it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

from efsgd_jax.audit.games import Playable

Patches = dict[str, Callable[..., Any]]


class Mutant(NamedTuple):
    """A fault and the game that shows it.

    Attributes:
      name: the fault.
      game: with sound code, which must survive it.
      changes: of the game's fields: faults of the caller.
      patches: of the library's functions, by their full name: faults of its code.
    """

    name: str
    game: Any
    changes: dict[str, Any] = {}  # noqa: RUF012  never written to
    patches: Patches = {}  # noqa: RUF012

    @contextlib.contextmanager
    def broken(self) -> Iterator[Playable]:
        """The game, played while the fault is in place."""
        with contextlib.ExitStack() as stack:
            for target, replacement in self.patches.items():
                stack.enter_context(mock.patch(target, replacement))
            yield dataclasses.replace(self.game, name=self.name, **self.changes)
