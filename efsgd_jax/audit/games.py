"""Distinguishing games: a small adversarial problem is run with a canary or without it, and an attack guesses which.

The adversary is the one in the definition of differential privacy. It chooses every gradient, knows the mechanism and
sees every noisy sum, and decides from these whether the canary took part. It does not know the PRNG keys. Row 0 of the
table of gradients is the canary.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.audit.scores import likelihood_ratio
from efsgd_jax.privacy import DpSgdMechanism, Ledger, clipped_grad, outer_clip, sensitivity_of, unit_lengths
from efsgd_jax.privacy.accounting import FINE
from efsgd_jax.privacy.feedback import ErrorFeedbackState, error_feedback_aggregate
from efsgd_jax.privacy.feedback_options import decay_of, share_of

PyTree = Any


def poisson(
    key: jax.Array, step: jax.Array, present: jax.Array, mechanism: DpSgdMechanism
) -> tuple[jax.Array, jax.Array]:
    """Rows and mask of one step's Poisson batch: from all rows if ``present``, otherwise from all but the canary.

    Args:
      key: typed PRNG key of the run's batches.
      step: number of the step.
      present: bool scalar, whether the canary takes part in the run.
      mechanism: the mechanism; its ``dataset_size`` counts the canary.
    """
    key = jax.random.fold_in(key, step)
    others = mechanism._replace(dataset_size=mechanism.dataset_size - 1).sample(key)
    everything = mechanism.sample(key)
    rows = jnp.where(present, everything[0], others[0] + 1)
    return rows, jnp.where(present, everything[1], others[1])


@dataclasses.dataclass(frozen=True)
class Game:
    """One mechanism and one adversary.

    Attributes:
      name: name of the game, for the table.
      mechanism: the mechanism under attack; its ``dataset_size`` counts the canary.
      scales: for each step, the canary's gradient in multiples of ``contribution``, whose norm is the clip norm.
      others: the gradient of every other row in the same multiples; in the opposite direction if negative.
      width: number of coordinates of each of the two groups of parameters.
      clipping: which code computes the clipped sum: the transform from per-example gradients, or ``clipped_grad`` with
        the whole batch at once ("vmap") or in microbatches of 2 ("microbatched").
      unit_residual: the option of that name of mode ``local``.
      members: number of members of an ensemble under ``vmap``, all of which are released; the sign of the canary's
        gradient alternates between them.
      tight: whether the claimed epsilon is exact for this adversary, so that with enough runs the lower bound comes
        close to it; otherwise the lower bound may be far below.
      score: function of three arguments that returns the attack's score: the releases of all steps ``[T, k]``, scaled
        so that their noise has variance 1; what the canary adds to them ``[T, k]``; and the sampling probability q.
      sample: function that returns the rows and the mask of one step; see ``poisson``.
      wrap: function that is applied to the transform; the identity, unless a fault is to be injected.
      divide: function of the mean and of the batch's mask that is applied to the released mean; it returns the mean
        unchanged, unless a fault is to be injected.
    """

    name: str
    mechanism: DpSgdMechanism
    scales: tuple[float, ...] = (10.0,)
    others: float = 0.0
    width: int = 1
    clipping: Literal["per example", "vmap", "microbatched"] = "per example"
    unit_residual: Literal["scalar", "vector"] = "scalar"
    members: int = 1
    tight: bool = False
    score: Callable[[jax.Array, jax.Array, float], jax.Array] = likelihood_ratio
    sample: Callable[[jax.Array, jax.Array, jax.Array, DpSgdMechanism], tuple[jax.Array, jax.Array]] = poisson
    wrap: Callable[[optax.GradientTransformationExtraArgs], optax.GradientTransformationExtraArgs] = lambda transform: (
        transform
    )
    divide: Callable[[PyTree, jax.Array], PyTree] = lambda mean, mask: mean

    def claimed(self, delta: float) -> float:
        """The upper bound under attack: the accountant's epsilon of the game's mechanism at ``delta``."""
        releases = len(self.scales) * self.members
        return Ledger(self.mechanism, math.inf, delta, releases).spent(releases, grid=FINE)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The attack's score of one run, with the canary if ``present``."""
        return _trial(self, present, key)


class Playable(Protocol):
    """Protocol of all games, such as ``Game`` and ``shard_games.ShardGame``."""

    @property
    def name(self) -> str: ...

    @property
    def tight(self) -> bool: ...

    def claimed(self, delta: float) -> float: ...

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array: ...


def play(game: Playable, present: jax.Array, absent: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Plays a game once for each key.

    Args:
      game: the game to play.
      present: typed PRNG keys ``[R]`` of the runs with the canary.
      absent: typed PRNG keys ``[R']`` of the runs without the canary.

    Returns:
      The attack's scores: float ``[R]`` of the runs with the canary, and float ``[R']`` of those without.
    """
    run = jax.jit(jax.vmap(game.trial, in_axes=(None, 0)))
    return np.asarray(run(jnp.array(True), present)), np.asarray(run(jnp.array(False), absent))


def contribution(game: Game) -> PyTree:
    """A vector of the largest norm that one example can add to the sum; all gradients of the game are multiples of it.

    All coordinates of a group are equal. With one clip norm C there are two groups, "a" and "b", with the joint norm C;
    with a clip norm for each group, that of group m has the norm C_m.
    """
    clip = game.mechanism.l2_norm_clip
    if isinstance(clip, Mapping):
        return {k: jnp.full(game.width, c / math.sqrt(game.width)) for k, c in clip.items()}
    return {k: jnp.full(game.width, clip / math.sqrt(2 * game.width)) for k in ("a", "b")}


def _trial(game: Game, present: jax.Array, key: jax.Array) -> jax.Array:
    mechanism = game.mechanism
    noise_key, sampling_key = jax.random.split(key)
    largest = contribution(game)
    signs = jnp.array([(-1.0) ** m for m in range(game.members)])
    transform = game.wrap(_transform(game, noise_key))

    def per_row(step: jax.Array, sign: jax.Array) -> PyTree:
        canary = jnp.arange(mechanism.dataset_size) == 0
        scale = jnp.where(canary, sign * jnp.array(game.scales)[step], game.others)
        return jax.tree.map(lambda u: scale[:, None] * u, largest)

    def one_member(sign: jax.Array, state: ErrorFeedbackState, params: PyTree, step: jax.Array) -> Any:
        rows, mask = game.sample(sampling_key, step, present, mechanism)
        grads = jax.tree.map(lambda g: g[rows], per_row(step, sign))
        total = _clipped(game, grads, mask, rows, state)
        given = {"mask": mask} if total is grads else {}  # a ClippedSum has applied the mask already
        mean, new = transform.update(total, state, params, indices=rows, **given)
        mean = game.divide(mean, mask)
        return new, _normalised(mechanism, mean, state, new)

    def one_step(states: ErrorFeedbackState, step: jax.Array) -> tuple[ErrorFeedbackState, jax.Array]:
        if game.members == 1:
            return one_member(signs[0], states, largest, step)  # parameters: only their shapes matter
        return jax.vmap(one_member, in_axes=(0, 0, 0, None))(signs, states, stacked, step)

    stacked = jax.tree.map(lambda u: jnp.stack([u] * game.members), largest)
    state = transform.init(largest) if game.members == 1 else jax.vmap(transform.init)(stacked)
    steps = len(game.scales)
    _, seen = jax.lax.scan(one_step, state, jnp.arange(steps))
    change = jnp.stack([_change(game, t) for t in range(steps)])
    if game.members > 1:
        change = change[:, None] * signs[:, None]
    width = change.shape[-1]
    return game.score(seen.reshape(-1, width), change.reshape(-1, width), mechanism.sampling_probability)


def _transform(game: Game, key: jax.Array) -> optax.GradientTransformationExtraArgs:
    m = game.mechanism
    if game.unit_residual == "scalar":
        return m.unchecked_transform(key)
    return error_feedback_aggregate(
        m.l2_norm_clip, m.noise_multiplier, key, expected_batch_size=m.expected_batch_size, feedback="local",
        feedback_l2_norm_clip=m.feedback_l2_norm_clip, feedback_decay=m.feedback_decay,
        num_units=m.dataset_size, unit_residual="vector",
    )  # fmt: skip


def _clipped(game: Game, grads: PyTree, mask: jax.Array, rows: jax.Array, state: ErrorFeedbackState) -> Any:
    if game.clipping == "per example":
        return grads
    m = game.mechanism
    sums = clipped_grad(
        lambda params, g, key: (optax.tree.vdot(params, g), None),
        m.l2_norm_clip,
        microbatch_size=2 if game.clipping == "microbatched" else None,
        outer_l2_norm_clip=outer_clip(m.feedback, m.feedback_l2_norm_clip),
    )
    carried = unit_lengths(state.residual, rows) if m.feedback == "local" else None
    params = jax.tree.map(lambda g: jnp.zeros(g.shape[1:]), grads)
    return sums(params, grads, jax.random.split(jax.random.key(0), len(mask)), mask, carried)


def _normalised(m: DpSgdMechanism, mean: PyTree, before: ErrorFeedbackState, after: ErrorFeedbackState) -> jax.Array:
    """The release of one step ``[k]``, scaled so that its noise has variance 1; with ``private``, both channels."""
    noisy = _flat(mean) * m.expected_batch_size
    if m.feedback != "private":
        return noisy / (m.noise_multiplier * sensitivity_of(m.l2_norm_clip))
    decay = decay_of(m.feedback, m.feedback_decay)
    filtered = _flat(after.residual)
    clipping_excess = (filtered - decay * _flat(before.residual)) / (1 - decay)
    return jnp.concatenate([(noisy - filtered) / _stds(m)[0], clipping_excess / _stds(m)[1]])


def _change(game: Game, step: int) -> jax.Array:
    """The largest change that the canary makes to the result of ``_normalised`` in a step, if it takes part in it."""
    m = game.mechanism
    change = jnp.sign(game.scales[step]) * _flat(contribution(game))
    sensitivity = sensitivity_of(m.l2_norm_clip)
    if m.feedback == "private":
        assert m.feedback_l2_norm_clip is not None
        excess = m.feedback_l2_norm_clip / sensitivity - 1
        return jnp.concatenate([change / _stds(m)[0], excess * change / _stds(m)[1]])
    if m.feedback == "hidden" and step > 0:
        assert m.feedback_l2_norm_clip is not None
        change = change * (1 + 2 * m.feedback_l2_norm_clip / sensitivity)
    return change / (m.noise_multiplier * sensitivity)


def _stds(m: DpSgdMechanism) -> tuple[jax.Array, jax.Array]:
    """Standard deviations of the noise of mode ``private``: on the clipped sum, and on the residual channel."""
    assert m.feedback_l2_norm_clip is not None
    sensitivity, share = sensitivity_of(m.l2_norm_clip), share_of(m.feedback_share)
    return (
        m.noise_multiplier * sensitivity / math.sqrt(1 - share),
        m.noise_multiplier * (m.feedback_l2_norm_clip - sensitivity) / math.sqrt(share),
    )


def _flat(tree: PyTree) -> jax.Array:
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])
