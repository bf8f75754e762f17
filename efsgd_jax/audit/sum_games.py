"""Games on sums over all records that are released once, with records that a float32 sum does not add correctly.

The adversary chooses the records. Without the canary the first ones bring a float32 sum to 2^24, above which the gap
between two floats is 2. Many records of -1 follow. Below 2^24 each of them is added. If the canary is present, it lifts
the sum above 2^24, where each -1 is lost by rounding. The canary thus changes a float32 sum that is computed row by row
by several times its own norm (Casacuberta et al., 2022, arXiv 2207.10635).
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.audit.scores import likelihood_ratio
from efsgd_jax.privacy import epsilon as epsilon_of
from efsgd_jax.privacy import gaussian_event
from efsgd_jax.privacy.one_shot import NoiseSupply, Release

# The number of rows of -1, divided by the canary's number (``clipped`` below). A float32 sum loses these rows if the
# canary is present, so that the canary can change the sum by this many clip norms more than its own.
LOST = 2


def adversarial_rows(clipped: int) -> np.ndarray:
    """Whole numbers ``[N, 1]`` with absolute values of at most ``clipped``; row 0, the canary, is ``clipped``.

    ``clipped`` is the clip norm in whole numbers: a row is this number of units of rounding.
    """
    whole, rest = divmod(2**24, clipped)
    rows = [clipped, *[clipped] * whole, rest, *[-1] * (LOST * clipped)]
    return np.array(rows, np.float32)[:, None]


@dataclasses.dataclass(frozen=True)
class SumGame:
    """A game on one ``Release`` of one sum; in runs without the canary its row is zero.

    Attributes:
      name: name of the game, for the table.
      noise_multiplier: sigma.
      times: how often the sum is released, each time with fresh noise; more than once only as an injected fault, since
        the claim is of one release.
      also: what else is published without noise, as an injected fault: the "sum", such as an exact mean by which rows
        are centred, or the "count" of records, such as the size of a class.
      tight: whether the claimed epsilon is exact for this adversary, so that with enough runs the lower bound comes
        close to it.
    """

    name: str
    noise_multiplier: float
    times: int = 1
    also: Literal["", "sum", "count"] = ""
    tight: bool = True

    def claimed(self, delta: float) -> float:
        """The upper bound under attack: the accountant's epsilon of the release at ``delta``."""
        return epsilon_of(gaussian_event(self.noise_multiplier), delta)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The attack's score of one run: the log likelihood ratio of its release."""
        release = Release(NoiseSupply(key, self.times), 1.0, self.noise_multiplier)
        with jax.ensure_compile_time_eval():
            longest = release.rows(jnp.ones((1, 1)), 1.0)
            numbers = adversarial_rows(int(longest.values[0, 0]))
        canary = jnp.arange(len(numbers))[:, None] == 0
        rows = jnp.where(canary & ~present, 0.0, jnp.asarray(numbers * longest.unit, jnp.float32))
        whole, groups = release.rows(rows, 1.0), jnp.zeros(len(numbers), jnp.int32)
        seen = jnp.concatenate([release.sums(whole, groups, 1) for _ in range(self.times)])
        others = math.fsum(numbers[1:, 0]) * longest.unit
        change = jnp.full((self.times, 1), 1 / self.noise_multiplier)
        if self.also == "count":
            return jnp.sum(rows != 0).astype(jnp.float32)
        if self.also:  # whoever knows all other rows subtracts them
            whole_sum = jnp.sum(whole.values.astype(jnp.int32)) - int(math.fsum(numbers[1:, 0]))
            return whole_sum.astype(jnp.float32)
        return likelihood_ratio((seen - others) / release.std, change, 1.0)


def sum_games() -> list[SumGame]:
    """The games on sums on the correct code, in which no violation may be found."""
    return [SumGame("a full-batch sum of float32's worst rows", 1.0)]
