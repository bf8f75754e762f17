"""Access to private records: the only interface through which a phase of a method reads them.

An access object is created inside of the compiled step (``mechanism.open``), from traced arrays, so that a phase stays
a pure function. What its methods return has passed the mechanism. Other functions of raw records (losses, norms) are
kept separately, in ``private_metrics``. An access also records each release while the step is traced. A release that
the mechanism did not declare raises ``UndeclaredReleaseError`` before the first step is taken.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.extend.core import get_opaque_trace_state

PyTree = Any


class UndeclaredReleaseError(ValueError):
    """A step releases more than its mechanism accounts for."""


class Recorded(NamedTuple):
    """One release of a step.

    Attributes:
      what: what is released, in words.
      share: the part of what the mechanism declared for one step that this release uses.
    """

    what: str
    share: float


class Access:
    """The data that a step may read. This base class has no private records; it is the access of post-processing.

    Args:
      released: what earlier phases of the run released, by the name of the phase; it is public.
      public: public data that was given to the method; None if there is none.

    Attributes:
      released: the argument of that name; an empty mapping if it was None.
      public: the argument of that name.
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
        """Scalars that are functions of raw records, such as losses, by name; never to be released.

        A run writes them only to ``private/`` in its working directory.
        """
        return self._metrics

    def _record(self, what: str, share: float = 1.0) -> None:
        """Records a release.

        Args:
          what: what is released, in words.
          share: the part of what the mechanism declared for one step that this release uses.

        Raises:
          UndeclaredReleaseError: the step releases more than was declared, or the call is inside of a loop, a
            conditional or another transformation, where it is traced once but may be executed any number of times.
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
