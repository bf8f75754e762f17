"""Distinguishing games for sanitised gradients: one of K shards gives the opposite gradient of all others, or the same.

A game is a membership experiment: the mechanism is run many times with the changed shard and many times without it, and
an attack guesses from the releases which was the case. Its error rates give a lower bound on epsilon, which must not
exceed the claimed epsilon. A scoring shard is one whose discriminator scores generated images in a step.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efsgd_jax.audit.scores import likelihood_ratio
from efsgd_jax.privacy import Ledger
from efsgd_jax.privacy.accounting import FINE
from efsgd_jax.privacy.feedback import ErrorFeedbackState
from efsgd_jax.synthesizers.sanitized_gan.mechanism import IMAGE_SCHEDULES, ShardMechanism, Turn
from efsgd_jax.synthesizers.sanitized_gan.sanitizer import make_sanitizer

# Norm of the adversary's gradients in multiples of the clip norm.
LENGTH = 10.0


def pooled(seen: jax.Array, change: jax.Array, q: jax.Array) -> jax.Array:
    """Log likelihood ratio if all releases of a step come from one shard: the best score for ``one_draw_for_all``."""
    each = jnp.sum(seen * change - change**2 / 2, axis=(1, 2))
    return jnp.sum(jnp.logaddexp(jnp.log1p(-q), jnp.log(q) + each))


def one_by_one(seen: jax.Array, change: jax.Array, q: jax.Array) -> jax.Array:
    """Log likelihood ratio if the scoring shard is chosen independently for every release."""
    width = seen.shape[-1]
    return likelihood_ratio(seen.reshape(-1, width), change.reshape(-1, width), q)


def as_scheduled(key: jax.Array, step: jax.Array, mechanism: ShardMechanism) -> Turn:
    """The scoring shards of a step as the library chooses them."""
    return mechanism.turn(key, step)


def one_draw_for_all(key: jax.Array, step: jax.Array, mechanism: ShardMechanism) -> Turn:
    """The scoring shards of a step as the code published with GS-WGAN chooses them: one shard for all images."""
    turn = mechanism.turn(key, step)
    return turn._replace(scoring=jnp.broadcast_to(turn.scoring[:1], turn.scoring.shape))


@dataclasses.dataclass(frozen=True)
class ShardGame:
    """One schedule and one adversary, who owns every discriminator and sees every sanitised gradient.

    Attributes:
      name: name of the game, for the table.
      mechanism: the mechanism under attack.
      steps: T, the number of steps.
      width: number of coordinates of an image, or of the parameters.
      tight: whether the claimed epsilon is exact for this adversary, so that with enough runs the lower bound comes
        close to it; otherwise the lower bound may be far below.
      score: function of three arguments that returns the attack's score: the releases ``[T, n, width]``, where n is the
        number of sanitised gradients in a step, scaled so that their noise has variance 1 and shifted so that their
        mean is 0 without the changed shard; what the changed shard adds to them; and the probability that it scores.
      turn: function that returns the scoring shards of a step; see ``as_scheduled``.
      wrap: function that is applied to the transform; the identity, unless a fault is to be injected.
    """

    name: str
    mechanism: ShardMechanism
    steps: int = 1
    width: int = 2
    tight: bool = False
    score: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] = one_by_one
    turn: Callable[[jax.Array, jax.Array, ShardMechanism], Turn] = as_scheduled
    wrap: Callable[[optax.GradientTransformationExtraArgs], optax.GradientTransformationExtraArgs] = lambda transform: (
        transform
    )

    def claimed(self, delta: float) -> float:
        """The upper bound under attack: the accountant's epsilon of the game's mechanism at ``delta``."""
        return Ledger(self.mechanism, math.inf, delta, self.steps).spent(self.steps, grid=FINE)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The attack's score of one run.

        If ``present``, shard 0 gives the opposite of the other shards' gradient, otherwise the same gradient.
        """
        m = self.mechanism
        turn_key, noise_key = jax.random.split(key)
        transform = self.wrap(m.transform(noise_key))
        sanitize = make_sanitizer(transform)
        direction = jnp.full(self.width, self.width**-0.5)
        each = m.slots // m.num_scoring if m.schedule in IMAGE_SCHEDULES else 1

        def one_step(residual: Any, step: jax.Array) -> tuple[Any, jax.Array]:
            scoring = self.turn(jax.random.fold_in(turn_key, step), step, m).scoring
            signs = jnp.where(present & (scoring == 0), 1.0, -1.0)
            step_key = jax.random.fold_in(noise_key, step)
            gradients = LENGTH * m.l2_norm_clip * signs[:, None] * direction
            if m.schedule not in IMAGE_SCHEDULES:
                mean, new = transform.update(gradients, ErrorFeedbackState(step_key, residual))
                return new.residual, mean[None]

            def loss(images: jax.Array, residual: Any) -> jax.Array:
                shard_of_image = jnp.repeat(scoring, each)
                clean = jax.vmap(sanitize, in_axes=(0, 0, None, 0))(images, residual, step_key, shard_of_image)
                return jnp.vdot(clean, jnp.repeat(gradients, each, axis=0))

            images = jnp.zeros((m.slots, self.width))
            seen, residual = jax.grad(loss, argnums=(0, 1))(images, residual)
            return residual, seen

        one = jnp.zeros(self.width)
        residual = transform.init(one).residual
        if m.schedule in IMAGE_SCHEDULES:
            residual = jax.vmap(lambda x: transform.init(x).residual)(jnp.zeros((m.slots, self.width)))
        _, seen = jax.lax.scan(one_step, residual, jnp.arange(self.steps))
        parts = m.images_per_step if m.schedule in IMAGE_SCHEDULES else m.judges_per_step
        summed = 1 if m.schedule in IMAGE_SCHEDULES else m.judges_per_step  # clipped gradients that a release adds up
        white = (seen * parts + summed * m.l2_norm_clip * direction) / (2 * m.l2_norm_clip * m.noise_multiplier)
        change = jnp.broadcast_to(direction / m.noise_multiplier, white.shape)
        if m.schedule == "round_robin":  # in which steps shard 0 scores the images is public
            asked = jnp.arange(self.steps) % m.num_shards == 0
            return self.score(white, jnp.where(asked[:, None, None], change, 0.0), jnp.array(1.0))
        return self.score(
            white, change, jnp.array(m.num_scoring / m.num_shards if m.schedule == "parameter" else 1 / m.num_shards)
        )


def shard_games() -> list[ShardGame]:
    """Games on every schedule that has a proof."""
    independent = ShardMechanism(
        dataset_size=10, num_shards=10, schedule="independent", noise_multiplier=1.0, images_per_step=8
    )
    parameter = ShardMechanism(
        dataset_size=10, num_shards=10, schedule="parameter", noise_multiplier=0.7, judges_per_step=2
    )
    every = parameter._replace(noise_multiplier=2.0, judges_per_step=10)
    turns = ShardMechanism(
        dataset_size=10, num_shards=2, schedule="round_robin", noise_multiplier=3.0, images_per_step=4
    )
    local = turns._replace(feedback="local", feedback_l2_norm_clip=3.0, feedback_decay=0.9)
    return [
        ShardGame("shards, independent, 8 images, T = 2", independent, steps=2),
        ShardGame("shards, parameter, 2 of 10, T = 4", parameter, steps=4),
        ShardGame("shards, parameter, all of 10, T = 4", every, steps=4, tight=True),
        ShardGame("shards, round robin, 4 images, T = 3", turns, steps=3, tight=True),
        ShardGame("shards, round robin, local feedback, T = 3", local, steps=3, tight=True),
    ]
