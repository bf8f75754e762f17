"""Access to private records: the only route by which a phase of a method reads them.

An access is made inside of the compiled step (``mechanism.open``), from traced arrays, so that a phase stays a pure
function. What it returns has passed the mechanism; what it computes of raw records beside (losses, norms) is kept
apart, in ``private_metrics``. It also keeps the books: each release is recorded while the step is traced, and one that
the mechanism did not declare is refused before the first step is taken.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.extend.core import get_opaque_trace_state

PyTree = Any


class UndeclaredReleaseError(ValueError):
    """A step releases more than its mechanism accounts for."""


class Recorded(NamedTuple):
    """One release of a step: what it is, and the part of what the mechanism declared for a step that it takes."""

    what: str
    share: float


class Access:
    """What a step may read. This one has no private records: it is that of post-processing.

    Args:
      released: by phase, what earlier phases of the run released; everyone may see it.
      public: public data, whatever the method was given; None if there is none.

    Attributes:
      recorded: the releases of this step, in order.

    Examples:
      >>> Access(released={"means": 3.0}).released["means"]
      3.0
    """

    def __init__(self, *, released: Mapping[str, PyTree] | None = None, public: PyTree = None):
        self.released: Mapping[str, PyTree] = released or {}
        self.public = public
        self.recorded: list[Recorded] = []
        self._metrics: dict[str, jax.Array] = {}
        self._trace = get_opaque_trace_state(convention="flax")

    def private_metrics(self) -> dict[str, jax.Array]:
        """Scalars that are functions of raw records, such as losses: for ``private/`` only."""
        return self._metrics

    def _record(self, what: str, share: float = 1.0) -> None:
        """Enters a release into the books.

        Raises:
          UndeclaredReleaseError: the step releases more than was declared, or the call is inside of a loop, a
            conditional or another transformation, where it would be traced once and made any number of times.
        """
        if get_opaque_trace_state(convention="flax") != self._trace:
            raise UndeclaredReleaseError(
                f"{what} is released inside of a jax transformation (a loop, cond, vmap, grad or jit) within the step, "
                "where the number of releases is not known; call the access at the top level of the step"
            )
        taken = sum(r.share for r in self.recorded)
        if not 0 < share <= 1 or taken + share > 1 + 1e-9:
            before = ", ".join(f"{r.what} ({r.share:g})" for r in self.recorded) or "nothing"
            raise UndeclaredReleaseError(
                f"a step releases {what} with the share {share:g} of what its mechanism accounts for in a step, after "
                f"{before}; the shares must be above 0 and at most 1 together"
            )
        self.recorded.append(Recorded(what, share))

    def _note(self, **metrics: jax.Array) -> None:
        self._metrics |= metrics
