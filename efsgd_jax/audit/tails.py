"""The tails of the noise: releases that one world has and the other one cannot have, at the delta of practice.

No number of runs reaches delta 1e-5 by counting likely events. But noise that ends does: whatever lies beyond
``reach``, the largest noise there is, is impossible without the canary; if it happens with the canary more often than
delta, every epsilon is refuted. The canary moves one coordinate by 1 / sigma standard deviations: enough for tails that
end where those of float32 normals do.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from efsgd_jax.audit.games import play
from efsgd_jax.audit.tree_games import TreeGame, given
from efsgd_jax.audit.white_box import Row
from efsgd_jax.privacy import DpSgdMechanism
from efsgd_jax.privacy.gaussian_table import LARGEST
from efsgd_jax.privacy.noise import BASE, DIGITS, NOISE_WIDTH

DELTA = 1e-5
# The largest noise, in standard deviations: ours, and of ``jax.random.normal``, which ends at -5.42 and 5.22.
REACH = LARGEST * sum(BASE**j for j in range(DIGITS)) / NOISE_WIDTH
NORMAL_REACH = 5.4201


class Tails(NamedTuple):
    """A claim and two attacks on it.

    Attributes:
      beyond: of the noise's reach: an infinite bound if that happens more often than delta.
      counted: of the reach of float32 normals, with the events counted in both worlds: for noise that goes on.
    """

    beyond: Row
    counted: Row


def tail_game(noise_multiplier: float = 0.5) -> TreeGame:
    """One coordinate, which the canary moves by 1 / sigma; the score is where it is."""
    shape = {"w": jnp.zeros(1)}
    records = {"w": jnp.array([[100.0], [0.0]])}
    return TreeGame(
        "tails",
        DpSgdMechanism(2, 1.0, 2, noise_multiplier),
        given,
        shape,
        records,
        score=lambda seen, change, q: seen[0, 0],
    )


def tail_bound(
    present: np.ndarray, absent: np.ndarray, threshold: float, reach: float, delta: float, significance: float
) -> float:
    """Epsilon is at least this, from how many scores are above a threshold that was chosen beforehand.

    Args:
      present: scores with the canary.
      absent: scores without it.
      threshold: in standard deviations.
      reach: scores without the canary are never above it, for certain.
      delta: of the claim.
      significance: chance that the bound exceeds the true epsilon; Clopper-Pearson, half of it for each world.
    """
    hits, false_hits = int(np.sum(present > threshold)), int(np.sum(absent > threshold))
    often = stats.beta.ppf(significance / 2, hits, len(present) - hits + 1) if hits else 0.0
    seldom = 0.0
    if threshold < reach:
        seldom = stats.beta.ppf(1 - significance / 2, false_hits + 1, len(absent) - false_hits)
    elif false_hits:
        raise ValueError(f"{false_hits} scores are above {threshold:g} without the canary: the reach is not {reach:g}.")
    if often <= delta:
        return 0.0
    return max(0.0, math.log((often - delta) / seldom)) if seldom else math.inf


def attack_tails(*, trials: int, key: jax.Array, reach: float = REACH, significance: float = 0.05) -> Tails:
    """Plays ``tail_game`` with the code as it is.

    Args:
      trials: runs with the canary, and as many without; some 10,000 show the end of float32 normals.
      key: typed PRNG key of the trials.
      reach: of the noise in use, in standard deviations.
      significance: as for ``tail_bound``, for both bounds together.
    """
    game = tail_game()
    scores = play(game, *(jax.random.split(jax.random.fold_in(key, i), trials) for i in (0, 1)))
    claimed = game.claimed(DELTA)

    def row(name: str, threshold: float, certain: float) -> Row:
        return Row(name, False, claimed, tail_bound(*scores, threshold, certain, DELTA, significance / 2), DELTA)

    return Tails(row("beyond the noise", reach, reach), row("beyond 5.42", NORMAL_REACH, math.inf))
