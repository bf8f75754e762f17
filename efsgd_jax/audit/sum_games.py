"""Games on sums over all records that are released once, with a batch of which no float32 sum is right.

Whoever chooses the records chooses which of them are lost. The first ones bring a float32 sum to 2^24, where the gap
between two floats becomes 2; then come as many of -1 as it takes. Below 2^24 each counts; above, where one more record
lifts the sum, each is rounded away. So that record moves a sum that is made one by one by several times what it is long
(Casacuberta et al., 2022, arXiv 2207.10635).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.audit.scores import likelihood_ratio
from efsgd_jax.privacy import epsilon as epsilon_of
from efsgd_jax.privacy import gaussian_event
from efsgd_jax.privacy.one_shot import NoiseSupply, Release

# Records of -1 for each that is clipped, that is by how many clip norms more the sum may move.
LOST = 2


def adversarial_rows(clipped: int) -> np.ndarray:
    """Whole numbers ``[N, 1]``, the canary first: none is above ``clipped``, which is what the canary is."""
    whole, rest = divmod(2**24, clipped)
    rows = [clipped, *[clipped] * whole, rest, *[-1] * (LOST * clipped)]
    return np.array(rows, np.float32)[:, None]


@dataclasses.dataclass(frozen=True)
class SumGame:
    """One ``Release`` of one sum; without the canary its row is zero.

    Attributes:
      name: for the table.
      noise_multiplier: sigma.
      tight: nothing is lost between the claim and this adversary.
    """

    name: str
    noise_multiplier: float
    tight: bool = True

    def claimed(self, delta: float) -> float:
        """The upper bound under attack."""
        return epsilon_of(gaussian_event(self.noise_multiplier), delta)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The likelihood ratio of one run's release."""
        release = Release(NoiseSupply(key, 1), 1.0, self.noise_multiplier)
        with jax.ensure_compile_time_eval():
            longest = release.rows(jnp.ones((1, 1)), 1.0)
            numbers = adversarial_rows(int(longest.values[0, 0]))
        canary = jnp.arange(len(numbers))[:, None] == 0
        rows = jnp.where(canary & ~present, 0.0, jnp.asarray(numbers * longest.unit, jnp.float32))
        seen = release.sums(release.rows(rows, 1.0), jnp.zeros(len(numbers), jnp.int32), 1)
        others = math.fsum(numbers[1:, 0]) * longest.unit
        return likelihood_ratio((seen - others) / release.std, jnp.full((1, 1), 1 / self.noise_multiplier), 1.0)


def sum_games() -> list[SumGame]:
    """What sound code must survive."""
    return [SumGame("a full-batch sum of float32's worst rows", 1.0)]
