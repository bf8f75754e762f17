"""All audit games on the correct code, in which no violation may be found.

They cover all combinations of feedback modes, samplers and clipping methods, except ``local`` with truncated batches;
parameters of several leaves and different losses; full-batch sums, of private rows too; persons and regions as units;
and methods with shards.
"""

import jax
import jax.numpy as jnp

from efsgd_jax.audit.centre_games import centre_games
from efsgd_jax.audit.games import Game, Playable
from efsgd_jax.audit.region_games import region_games
from efsgd_jax.audit.scores import likelihood_ratio
from efsgd_jax.audit.shard_games import shard_games
from efsgd_jax.audit.sum_games import sum_games
from efsgd_jax.audit.tree_games import tree_games
from efsgd_jax.audit.unit_games import unit_games
from efsgd_jax.privacy import DpSgdMechanism

GROUPS = {"a": 0.8, "b": 0.6}  # a joint sensitivity of 1, like the single clip norm
MODES = {
    "none": {},
    "hidden": {"feedback": "hidden", "feedback_l2_norm_clip": 0.5},
    "local": {"feedback": "local", "feedback_l2_norm_clip": 3.0, "feedback_decay": 0.9},
    "private": {"feedback": "private", "feedback_l2_norm_clip": 2.0, "feedback_decay": 0.5},
}
# The data set's size N, the sampling probability q, and the capacity of a batch.
SAMPLERS = {
    "full batch": (4, 1.0, 4),
    "Poisson": (4, 0.25, 4),
    "truncated Poisson": (12, 0.25, 4),
}
CLIPPINGS = {
    "per example": 1.0,
    "vmap": 1.0,
    "microbatched": 1.0,
    "per example, groups": GROUPS,
    "vmap, groups": GROUPS,
}


def mechanism(mode: str, sampler: str, noise_multiplier: float, clip: object = 1.0) -> DpSgdMechanism:
    """The mechanism of a mode in ``MODES`` with a sampler in ``SAMPLERS``; ``clip`` is one clip norm or ``GROUPS``."""
    return DpSgdMechanism(*SAMPLERS[sampler], noise_multiplier, l2_norm_clip=clip, **MODES[mode])  # type: ignore[arg-type]


def scales(mode: str, sampler: str, steps: int) -> tuple[float, ...]:
    """The canary's gradients in clip norms: of large norm and alternating sign, or such that they use the residual."""
    if mode == "hidden":
        return (100.0,) * steps  # fills the residual and keeps it full
    if mode == "local" and sampler == "full batch":
        # Each small gradient uses the residual that the large one before it has left.
        return tuple(10.0 if t % 2 == 0 else -0.1 for t in range(steps))
    return tuple(10.0 * (-1) ** t for t in range(steps))


def _correlation(seen: jax.Array, change: jax.Array, q: float) -> jax.Array:
    """The inner product of the releases with what the canary adds to them; for ``hidden``.

    There the residual carries the canary into later steps, whereas ``likelihood_ratio`` assumes that it changes only
    the steps whose batch contains it. With full batches both scores order the runs in the same way.
    """
    del q
    return jnp.sum(seen * change)


def sound_games(*, quick: bool = False) -> list[Playable]:
    """The games of all modes, samplers and clipping methods, and those on trees, sums and shards.

    With full batches there is a game of one step, where the claim is tight, and for per-example gradients also one of
    four steps. With the other samplers all games have four steps. There are none of ``local`` with truncated batches,
    whose event holds only if no batch overflows.

    Args:
      quick: of the clipping methods, play only per-example gradients with one clip norm.
    """
    games: list[Playable] = []
    for mode in MODES:
        for sampler in SAMPLERS:
            if (mode, sampler) == ("local", "truncated Poisson"):
                continue  # the event of ``local`` holds only if no batch overflows
            for name, clip in CLIPPINGS.items():
                if quick and name != "per example":
                    continue
                clipping = name.removesuffix(", groups")
                full = sampler == "full batch"
                for steps in (1, 4) if full and clipping == "per example" else (1 if full else 4,):
                    games.append(
                        Game(
                            f"{mode}, {sampler}, {name}, T = {steps}",
                            mechanism(mode, sampler, 1.0 if steps == 1 else 1.5, clip),
                            scales=scales(mode, sampler, steps),
                            # In `hidden`, the other rows fill the residual in one direction; the canary reverses it.
                            others=-5.0 if mode == "hidden" else 0.0,
                            clipping=clipping,  # type: ignore[arg-type]
                            tight=full and steps == 1,
                            score=_correlation if mode == "hidden" else likelihood_ratio,
                        )
                    )
    games.append(
        Game(
            "local, full batch, a residual vector for each unit, T = 4",
            mechanism("local", "full batch", 1.5),
            scales=(10.0,) * 4,
            unit_residual="vector",
        )
    )
    games += [
        Game(f"{mode}, ensemble of 2, T = 1", mechanism(mode, "full batch", 1.5), members=2, tight=True)
        for mode in ("none", "private")
    ]
    return [*games, *tree_games(), *sum_games(), *unit_games(), *region_games(), *shard_games(), *centre_games()]
