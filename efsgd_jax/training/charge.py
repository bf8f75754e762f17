"""The runner's charges: what a run will have spent is written to its ledger before each block of private steps."""

import math

import numpy as np

from efsgd_jax.privacy import Composition, Ledger
from efsgd_jax.training.devices import is_first
from efsgd_jax.training.run_files import RunFiles


class Charge:
    """Writes to the ledger, before each block of private steps, what the run will have spent after the block.

    Args:
      ledger: the run's ledger.
      directory: the run's directory, to which the first process writes.
      every: number of steps in a block; a block also ends with its phase.
      taken: number of private steps, over all phases, that were taken before, in a run that is continued.

    Attributes:
      taken: the argument of that name.
    """

    def __init__(self, ledger: Ledger[Composition], directory: RunFiles, every: int, taken: int):
        ends = np.cumsum([count for _, _, count in ledger.mechanism.taken(ledger.steps)])
        self._blocks = iter(ledger.blocks(every, taken, [int(end) for end in ends]))
        self._ledger, self._directory = ledger, directory
        self.taken = taken
        self._until, self._spent = taken, math.nan

    def before(self, step: int) -> float:
        """Charges for private step ``step``, counted from 0 through all phases.

        Returns:
          The epsilon that the run will have spent after the block of this step.
        """
        if step >= self._until:
            self._until, self._spent = next(self._blocks)
            if is_first():
                self._directory.begin(self._until, self._spent, self._ledger.delta)
        return self._spent
