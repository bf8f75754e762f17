"""Plays games many times and sets the bound that the attack proves beside the one that the accountant claims."""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax

from efsgd_jax.audit.bounds import lower_bound
from efsgd_jax.audit.games import Playable, play
from efsgd_jax.audit.mutants import mutants
from efsgd_jax.formatting import format_epsilon, format_lower_bound


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      name: of the game.
      tight: whether ``bound`` should come close to ``claimed``.
      claimed: epsilon at ``delta`` by the accountant.
      bound: epsilon is at least this, by attack.
      delta: of both.
    """

    name: str
    tight: bool
    claimed: float
    bound: float
    delta: float

    @property
    def refuted(self) -> bool:
        """The attack proves more than the claim allows: the mechanism is not what it says."""
        return self.bound > self.claimed


def audit(
    games: Iterable[Playable], *, trials: int, delta: float, key: jax.Array, significance: float = 0.05
) -> Iterable[Row]:
    """One row for each game, as they finish.

    Args:
      games: what to play.
      trials: runs with the canary, and as many without.
      delta: at which epsilons are compared; trials must be able to reach it, so 1e-2 rather than 1e-5.
      key: typed PRNG key of the trials; need not be secret, as nothing real is protected here.
      significance: chance that any bound of the table exceeds its game's true epsilon (Bonferroni over the games).

    Raises:
      UserError: jax-privacy is not installed.
    """
    games = list(games)
    for i, game in enumerate(games):
        with_canary, without = (jax.random.split(jax.random.fold_in(key, 2 * i + j), trials) for j in (0, 1))
        scores = play(game, with_canary, without)
        bound = lower_bound(*scores, delta, significance=significance / len(games))
        yield Row(game.name, game.tight, game.claimed(delta), bound, delta)


def to_table(rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = ["| mechanism | lower bound | claimed epsilon | of it | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "REFUTED" if row.refuted else ("tight" if row.tight else "")
        lines.append(
            f"| {row.name} | {format_lower_bound(row.bound)} | {format_epsilon(row.claimed)} | "
            f"{100 * row.bound / row.claimed:.0f}% | {verdict} |"
        )
    return "\n".join(lines)


class Fault(NamedTuple):
    """One line of the mutants' table: the same game with sound code and with broken code."""

    name: str
    sound: Row
    broken: Row


def attack_mutants(
    *, trials: int, delta: float, key: jax.Array, significance: float = 0.05, only: str = ""
) -> Iterable[Fault]:
    """One line for each mutant whose name contains ``only``, as they finish; arguments as for ``audit``."""
    chosen = [m for m in mutants() if only in m.name]
    survived: dict[int, Row] = {}  # of a game that several faults share, played once
    for i, mutant in enumerate(chosen):
        attack = functools.partial(
            audit,
            trials=trials,
            delta=delta,
            key=jax.random.fold_in(key, i),
            significance=significance / (2 * len(chosen)),
        )
        if id(mutant.game) not in survived:
            (survived[id(mutant.game)],) = attack([mutant.game])
        with mutant.broken() as game:
            (broken,) = attack([game])
        yield Fault(mutant.name, survived[id(mutant.game)], broken)


def mutants_table(faults: Iterable[Fault]) -> str:
    """Markdown."""
    lines = [
        "| fault | claimed epsilon | lower bound, sound code | lower bound, with the fault | |",
        "|---|---|---|---|---|",
    ]
    for f in faults:
        verdict = "caught" if f.broken.refuted else "MISSED"
        bounds = " | ".join(format_lower_bound(row.bound) for row in (f.sound, f.broken))
        lines.append(f"| {f.name} | {format_epsilon(f.sound.claimed)} | {bounds} | {verdict} |")
    return "\n".join(lines)
