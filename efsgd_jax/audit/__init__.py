"""Audits: attacks on the library's mechanisms give empirical lower bounds of epsilon, to compare with the claims."""

from efsgd_jax.audit.bounds import lower_bound
from efsgd_jax.audit.games import Game, play
from efsgd_jax.audit.shard_games import ShardGame
from efsgd_jax.audit.suite import sound_games
from efsgd_jax.audit.white_box import Row, audit, to_table

__all__ = ["Game", "Row", "ShardGame", "audit", "lower_bound", "play", "sound_games", "to_table"]
