"""The mutants: mechanisms with one fault each, of kinds that have occurred in real code; the audit must detect all."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efsgd_jax.audit.centre_games import centre_games, each_with_the_whole
from efsgd_jax.audit.games import Game, poisson
from efsgd_jax.audit.mutant import Mutant, Patches
from efsgd_jax.audit.region_games import by_token, of_the_sampled, region_games, sampled_records
from efsgd_jax.audit.shard_games import ShardGame, one_draw_for_all, pooled
from efsgd_jax.audit.suite import mechanism
from efsgd_jax.audit.sum_games import sum_games
from efsgd_jax.audit.tree_mutants import tree_mutants
from efsgd_jax.audit.unit_games import by_image, unit_games
from efsgd_jax.privacy import DpSgdMechanism, clipped_sum, feedback
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism

PyTree = Any

FEEDBACK, CLIPPED_SUM = "efsgd_jax.privacy.feedback", "efsgd_jax.privacy.clipped_sum"
ONE_SHOT = "efsgd_jax.privacy.one_shot"


def _noise(factor: float) -> Patches:
    sound = feedback.add_noise
    return {f"{FEEDBACK}.add_noise": lambda tree, std, moved, key: sound(tree, factor * std, moved, key)}


def _noise_on_the_first_channel_only() -> Patches:
    sound = feedback.add_noise
    calls: list[None] = []

    def add_noise(tree: PyTree, std: Any, moved: Any, key: Any) -> PyTree:
        # The noise of the residual channel is added first in every step; here it is left out.
        calls.append(None)
        return tree if len(calls) % 2 else sound(tree, std, moved, key)

    return {f"{FEEDBACK}.add_noise": add_noise}


def _zeros(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """In the place of ``lattice_noise``."""
    del key
    return jnp.zeros(shape, jnp.int32)


def _clip_each_leaf(grads: PyTree, l2_norm_clip: Any, **options: Any) -> clipped_sum.ClippedSum:
    each = clipped_sum.clip_and_sum(grads, dict.fromkeys(grads, l2_norm_clip), **options)
    return each._replace(sensitivity=jnp.asarray(l2_norm_clip))


def _reuse_the_key(transform: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        updates, new = transform.update(updates, state, params, **extra)
        return updates, new._replace(rng_key=state.rng_key)

    return optax.GradientTransformationExtraArgs(transform.init, update)


def _one_draw(key: jax.Array, step: jax.Array, present: jax.Array, m: DpSgdMechanism) -> tuple[jax.Array, jax.Array]:
    return poisson(key, jnp.zeros_like(step), present, m)


def shuffled(key: jax.Array, step: jax.Array, present: jax.Array, m: DpSgdMechanism) -> tuple[jax.Array, jax.Array]:
    """Batches of one row each, in a random order of all rows; in a run without the canary, its batch is empty."""
    row = jax.random.permutation(key, m.dataset_size)[step]
    return row[None], (present | (row != 0))[None]


def _one_step_differs(seen: jax.Array, change: jax.Array, q: float) -> jax.Array:
    """Log likelihood ratio for ``shuffled``, if the other rows have the opposite of the canary's gradient.

    The mean of each release is -1, in multiples of ``change``, except in one unknown step. There it is +1 with the
    canary and 0 without it.
    """
    del q
    size = jnp.linalg.norm(change, axis=1)
    x = jnp.sum(seen * change, axis=1) / size + size

    def evidence(shift: float) -> jax.Array:
        return jax.nn.logsumexp(shift * size * x - (shift * size) ** 2 / 2)

    return evidence(2.0) - evidence(1.0)


def _blocks(key: jax.Array, step: jax.Array, present: jax.Array, m: DpSgdMechanism) -> tuple[jax.Array, jax.Array]:
    """Batches that are contiguous blocks of rows, one of which is drawn in each step; row 0 is in the first block."""
    size = int(m.expected_batch_size)
    block = jax.random.randint(jax.random.fold_in(key, step), (), 0, m.dataset_size // size)
    rows = block * size + jnp.arange(size)
    return rows, present | (rows != 0)


def _block_of_the_canary(seen: jax.Array, change: jax.Array, q: float) -> jax.Array:
    """Log likelihood ratio for ``_blocks`` of 4 rows, if the other rows have the opposite of the canary's gradient.

    The mean of a release is -4, in multiples of ``change``; if the canary's block was drawn, it is -2 with the canary
    and -3 without it.
    """
    size = jnp.linalg.norm(change, axis=1)
    x = jnp.sum(seen * change, axis=1) / size

    def log_density(mean: float) -> jax.Array:
        return jnp.logaddexp(jnp.log1p(-q) - (x + 4 * size) ** 2 / 2, jnp.log(q) - (x - mean * size) ** 2 / 2)

    return jnp.sum(log_density(-2.0) - log_density(-3.0))


def _noise_if_votes_differ(transform: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Without noise if all gradients, of at least the clip norm 1, are equal: what all say is no secret of one."""

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        noisy, new = transform.update(updates, state, params, **extra)
        clean = updates[0] / jnp.linalg.norm(updates[0])
        return jnp.where(jnp.all(updates == updates[0]), clean, noisy), new

    return optax.GradientTransformationExtraArgs(transform.init, update)


def _largest(seen: jax.Array, change: jax.Array, q: jax.Array) -> jax.Array:
    """The largest of the releases, which is zero only where there was no noise."""
    del change, q
    return jnp.max(jnp.abs(seen))


def _second_channel(seen: jax.Array, change: jax.Array, q: float) -> jax.Array:
    """A score from the residual channel of mode ``private`` alone."""
    del q
    half = seen.shape[1] // 2
    return jnp.sum(seen[:, half:] * change[:, half:])


def _length(seen: jax.Array, change: jax.Array, q: float) -> jax.Array:
    """Minus the norm of the release: small noise shows that the sum was divided by the size of a larger batch."""
    del change, q
    return -jnp.linalg.norm(seen)


def mutants() -> list[Mutant]:
    """All mutants, one for each fault that the audit must detect."""
    full = Game("one step", mechanism("none", "full batch", 1.0))
    carried = Game("two steps", mechanism("hidden", "full batch", 2.0), scales=(100.0, 100.0))
    alternating = Game("two steps", mechanism("none", "full batch", 1.5), scales=(10.0, -10.0))
    many = DpSgdMechanism(dataset_size=20, sampling_probability=0.05, capacity=20, noise_multiplier=1.0)
    shuffle = DpSgdMechanism(dataset_size=40, sampling_probability=1 / 40, capacity=40, noise_multiplier=0.6)
    blocks = DpSgdMechanism(dataset_size=160, sampling_probability=1 / 40, capacity=40, noise_multiplier=0.6)
    region, _, drawn = region_games()
    drawn = dataclasses.replace(drawn, score=of_the_sampled)
    (centres,) = centre_games()
    halves = DpSgdMechanism(dataset_size=2, sampling_probability=0.5, capacity=2, noise_multiplier=1.0)
    return [
        Mutant("noise off", full, patches=_noise(0.0)),
        Mutant("noise halved", full, patches=_noise(0.5)),
        Mutant("clip removed", full, patches={f"{CLIPPED_SUM}._shorten": lambda norms, clip: jnp.ones_like(norms)}),
        Mutant("clip per layer, accounted globally", full, patches={f"{FEEDBACK}.clip_and_sum": _clip_each_leaf}),
        Mutant(
            "residual added after the noise (private)",
            Game("one step", mechanism("private", "full batch", 1.0), score=_second_channel),
            patches=_noise_on_the_first_channel_only(),
        ),
        Mutant("residual not clipped (hidden)", carried, patches={f"{FEEDBACK}.clip_by_norm": lambda tree, norm: tree}),
        Mutant(
            "residual not clipped (local)",
            Game("two steps", mechanism("local", "full batch", 1.5), scales=(10.0, 10.0)),
            patches={f"{CLIPPED_SUM}._contributed": lambda norms, r, clip: jnp.minimum(norms, clip) + r},
        ),
        Mutant("one key for two steps", alternating, {"wrap": _reuse_the_key}),
        Mutant(
            "the same noise in an ensemble",
            Game("two members", mechanism("none", "full batch", 1.5), members=2),
            patches={f"{FEEDBACK}.member_key": lambda key, witness: key},
        ),
        Mutant(
            "division by the realised batch size",
            Game("32 coordinates, N = 2", halves, width=32, score=_length),
            {"divide": lambda mean, mask: jax.tree.map(lambda x: x / jnp.maximum(jnp.sum(mask), 1), mean)},
        ),
        Mutant(
            "one draw shared, accounted as independent",
            Game("16 steps", many, scales=(10.0,) * 16),
            {"sample": _one_draw},
        ),
        Mutant(
            "shuffled, accounted as Poisson",
            Game("40 steps", shuffle, scales=(10.0,) * 40, others=-10.0, score=_one_step_differs),
            {"sample": shuffled},
        ),
        # Of the published code of arXiv 2006.12101.
        Mutant(
            "contiguous blocks, accounted as Poisson",
            Game("40 steps", blocks, scales=(10.0,) * 40, others=-10.0, score=_block_of_the_canary),
            {"sample": _blocks},
        ),
        Mutant(
            "votes noised only where they differ",
            ShardGame(
                "all of 10 shards",
                ShardMechanism(
                    dataset_size=10, num_shards=10, schedule="parameter", noise_multiplier=2.0, judges_per_step=10
                ),
                score=_largest,
            ),
            {"wrap": _noise_if_votes_differ},
        ),
        Mutant(
            "one discriminator for all images, accounted as independent",
            ShardGame(
                "8 images",
                ShardMechanism(
                    dataset_size=10, num_shards=10, schedule="independent", noise_multiplier=1.0, images_per_step=8
                ),
                score=pooled,
            ),
            {"turn": one_draw_for_all},
        ),
        # Of the published code of arXiv 2508.01749: sums without noise are kept, and each use of one is noised anew.
        *(Mutant(f"{game.name}, noised anew in 20 steps", game, {"times": 20}) for game in sum_games()),
        # Of the published code of arXiv 2006.12101: rows are centred by an exact mean, which the accounting leaves out.
        *(Mutant(f"{game.name}, and its exact value", game, {"also": "sum"}) for game in sum_games()),
        # Of that of arXiv 2106.04590, which takes the number of records, and what sets its bandwidth, as known.
        *(Mutant(f"{game.name}, and its exact count", game, {"also": "count"}) for game in sum_games()),
        *(Mutant(f"{game.name}, an image treated as the unit", game, {"records": by_image}) for game in unit_games()),
        *tree_mutants(),
        # Where arXiv 2410.17098 could be misread: tokens outside of the region see it through their receptive fields.
        Mutant("a region clipped token by token", region, {"parts": by_token}),
        Mutant("a region's public gradient of the sampled images", drawn, {"public_rows": sampled_records}),
        Mutant("private rows without noise", centres, patches={f"{ONE_SHOT}.lattice_noise": _zeros}),
        Mutant("private rows whose shares add up to more than 1", centres, {"opened": each_with_the_whole}),
    ]
