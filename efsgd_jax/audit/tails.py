"""An attack on the tails of the noise, at a realistic delta: releases that are possible only with the canary.

Counting likely events in a feasible number of runs shows nothing at delta = 1e-5. But noise with a bounded support can
be attacked. A release beyond ``reach``, the largest possible noise, is impossible without the canary. If such releases
happen with the canary more often than delta, every epsilon is refuted. The canary changes one coordinate by 1 / sigma
standard deviations, which is enough to detect noise whose tails end where those of float32 normals do.
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

# The delta of the claim that is attacked.
DELTA = 1e-5
# The largest noise in standard deviations: of the library (REACH), and of ``jax.random.normal``, whose values lie
# between -5.42 and 5.22 (NORMAL_REACH).
REACH = LARGEST * sum(BASE**j for j in range(DIGITS)) / NOISE_WIDTH
NORMAL_REACH = 5.4201


class Tails(NamedTuple):
    """The results of two attacks on the same claim.

    Attributes:
      beyond: the attack that counts scores beyond the reach of the noise in use; its bound is infinite if they happen
        more often than delta.
      counted: the attack that counts scores beyond the reach of float32 normals, with the canary and without: for
        noise whose support extends further.
    """

    beyond: Row
    counted: Row


def tail_game(noise_multiplier: float = 0.5) -> TreeGame:
    """A game with one coordinate; the canary moves it by 1 / sigma standard deviations of the noise. Its value is the
    score."""
    params = {"w": jnp.zeros(1)}
    records = {"w": jnp.array([[100.0], [0.0]])}
    return TreeGame(
        "tails",
        DpSgdMechanism(dataset_size=2, sampling_probability=1.0, capacity=2, noise_multiplier=noise_multiplier),
        given,
        params,
        records,
        score=lambda seen, change, q: seen[0, 0],
    )


def tail_bound(
    present: np.ndarray, absent: np.ndarray, threshold: float, reach: float, delta: float, significance: float
) -> float:
    """A lower bound of epsilon, from the number of scores above a threshold that was chosen beforehand.

    Args:
      present: scores of the runs with the canary.
      absent: scores of the runs without the canary.
      threshold: the threshold, in standard deviations of the noise.
      reach: a value that no score without the canary can exceed; ``inf`` if there is none.
      delta: the delta at which the bound holds.
      significance: probability that the bound exceeds the true epsilon. Half of it is for the Clopper-Pearson bound
        with the canary, half for the one without.

    Returns:
      The bound; ``inf`` if the threshold is at least ``reach`` and more scores than ``delta`` allows are above it.

    Raises:
      ValueError: the threshold is at least ``reach``, but a score without the canary is above it.
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
    """Plays ``tail_game`` and computes both bounds.

    Args:
      trials: number of runs with the canary, and of runs without; some 10,000 are enough to detect the bounded support
        of float32 normals.
      key: typed PRNG key of the trials.
      reach: the largest noise of the code in use, in standard deviations.
      significance: probability that any of the two bounds exceeds the true epsilon.
    """
    game = tail_game()
    scores = play(game, *(jax.random.split(jax.random.fold_in(key, i), trials) for i in (0, 1)))
    claimed = game.claimed(DELTA)

    def row(name: str, threshold: float, certain: float) -> Row:
        return Row(name, False, claimed, tail_bound(*scores, threshold, certain, DELTA, significance / 2), DELTA)

    return Tails(row("beyond the noise", reach, reach), row("beyond 5.42", NORMAL_REACH, math.inf))
