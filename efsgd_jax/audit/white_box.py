"""Plays games many times, and compares the attack's lower bounds of epsilon with the accountant's claims."""

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
      name: name of the audit game.
      tight: whether the claimed epsilon is exact for this game's adversary, so that with enough runs ``bound`` comes
        close to it.
      claimed: epsilon at ``delta``, by the accountant.
      bound: the attack's lower bound of epsilon.
      delta: the delta at which ``claimed`` and ``bound`` hold.
    """

    name: str
    tight: bool
    claimed: float
    bound: float
    delta: float

    @property
    def refuted(self) -> bool:
        """Whether the attack's lower bound exceeds the claimed epsilon, so that the claim is wrong."""
        return self.bound > self.claimed


def audit(
    games: Iterable[Playable], *, trials: int, delta: float, key: jax.Array, significance: float = 0.05
) -> Iterable[Row]:
    """Plays the games, and yields one row for each when it is finished.

    Args:
      games: the games to play.
      trials: number of runs with the canary, and of runs without, for each game.
      delta: the delta at which claims and bounds are compared; it must be large enough for the number of trials, such
        as 1e-2 rather than 1e-5.
      key: typed PRNG key of the trials; it need not be secret, since no real data is protected here.
      significance: probability that any bound of the table exceeds its game's true epsilon (Bonferroni over the games).

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
    """Returns the rows as a Markdown table."""
    lines = ["| mechanism | lower bound | claimed epsilon | of it | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "REFUTED" if row.refuted else ("tight" if row.tight else "")
        lines.append(
            f"| {row.name} | {format_lower_bound(row.bound)} | {format_epsilon(row.claimed)} | "
            f"{100 * row.bound / row.claimed:.0f}% | {verdict} |"
        )
    return "\n".join(lines)


class Fault(NamedTuple):
    """One line of the mutants' table.

    Attributes:
      name: name of the fault.
      sound: the result of the mutant's game on the correct code.
      broken: the result of the same game with the fault.
    """

    name: str
    sound: Row
    broken: Row


def attack_mutants(
    *, trials: int, delta: float, key: jax.Array, significance: float = 0.05, only: str = ""
) -> Iterable[Fault]:
    """Attacks the mutants whose names contain ``only``, and yields one line for each when it is finished.

    A game that several mutants share is played once on the correct code.

    Args:
      trials: see ``audit``.
      delta: see ``audit``.
      key: see ``audit``.
      significance: probability that any bound exceeds the true epsilon of what was attacked (Bonferroni).
      only: part of the names of the mutants to attack; "" for all.
    """
    chosen = [m for m in mutants() if only in m.name]
    survived: dict[int, Row] = {}  # the results on the correct code, by game
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
    """Returns the lines as a Markdown table."""
    lines = [
        "| fault | claimed epsilon | lower bound, sound code | lower bound, with the fault | |",
        "|---|---|---|---|---|",
    ]
    for f in faults:
        verdict = "detected" if f.broken.refuted else "MISSED"
        bounds = " | ".join(format_lower_bound(row.bound) for row in (f.sound, f.broken))
        lines.append(f"| {f.name} | {format_epsilon(f.sound.claimed)} | {bounds} | {verdict} |")
    return "\n".join(lines)
