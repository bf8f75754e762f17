"""Sanitised gradients from disjoint shards: who trains when, who judges what, and what that costs.

The data is divided into K shards. Each shard trains networks of its own on its raw images (a discriminator, say); what
leaves a shard is a gradient that is clipped to C and noised with std ``2 C sigma``: whatever one shard holds, it moves
what it releases by at most 2C. Four schedules decide which shard does what (``privacy/subset.py`` has the accountant):

===============  ==========================================  ======================================================
schedule         shards that train, and judges               T steps are
===============  ==========================================  ======================================================
``published``    one at random trains, then judges all B     nothing that amplifies: see ``revealed.revealed_epsilon``
                 images of the step
``round_robin``  one in public turn trains, then judges      ``Gaussian(sigma / sqrt(B))``, ``ceil(T / K)`` times
                 all B images
``independent``  U in public turn train; every image draws   ``one-of-K(Gaussian(sigma))``, T B times
                 a judge of its own
``parameter``    U in public turn train; M random judges     ``M-of-K(Gaussian(sigma))``, T times
                 give one clipped *parameter* gradient each
===============  ==========================================  ======================================================
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import dp_accounting
import jax
import jax.numpy as jnp
import optax

from efsgd_jax.privacy.accounting import COARSE_ORDERS, FINE, Accountant, epsilon, gaussian_event
from efsgd_jax.privacy.feedback import error_feedback_aggregate
from efsgd_jax.privacy.feedback_options import FeedbackMode
from efsgd_jax.privacy.hidden_split import best_fresh_share, split_of
from efsgd_jax.privacy.keys import fresh_key
from efsgd_jax.privacy.mechanism import Description
from efsgd_jax.privacy.subset import REPLACE_ONE
from efsgd_jax.synthesizers.sanitized_gan.access import ShardAccess, ShardedRecords
from efsgd_jax.synthesizers.sanitized_gan.description import describe
from efsgd_jax.synthesizers.sanitized_gan.revealed import revealed_epsilon

Schedule = Literal["published", "round_robin", "independent", "parameter"]
# The judge of these clips and noises each image's gradient, not the parameters'.
IMAGE_SCHEDULES = ("published", "round_robin", "independent")


class Turn(NamedTuple):
    """Who does what in one step: shards that train, int ``[U]``, and judges, int ``[J]``, each of B / J images."""

    training: jax.Array
    judges: jax.Array


class Shards(NamedTuple):
    """Which examples each shard holds: ``order`` int ``[N]`` lists them by shard; ``starts``, ``sizes`` int ``[K]``."""

    order: jax.Array
    starts: jax.Array
    sizes: jax.Array


class ShardMechanism(NamedTuple):
    """Everything that decides what a step of a gradient-sanitised generator costs.

    Attributes:
      dataset_size: N, treated as public.
      num_shards: K.
      schedule: see the module.
      noise_multiplier: sigma, noise std over ``2 C``; 0 means no noise and no guarantee.
      l2_norm_clip: C.
      images_per_step: B.
      judges_per_step: M, of ``parameter``.
      trained_per_step: U, of ``independent`` and ``parameter``. Costs nothing.
      feedback: mode of ``error_feedback_aggregate``; ``local`` keeps a residual for each shard, in public turn only.
      feedback_l2_norm_clip: D of that mode.
      feedback_decay: a of ``local`` and ``private``. Costs nothing.
      feedback_share: rho of ``private``. Costs nothing.
      real_codes: images rebuilt from codes of real images pass through the sanitiser.
      fresh_share: of the noise's variance, that on fresh gradients, with ``hidden`` feedback. None for one half.
    """

    dataset_size: int
    num_shards: int
    schedule: Schedule
    noise_multiplier: float
    l2_norm_clip: float = 1.0
    images_per_step: int = 32
    judges_per_step: int = 1
    trained_per_step: int = 1
    feedback: FeedbackMode = "none"
    feedback_l2_norm_clip: float | None = None
    feedback_decay: float | None = None
    feedback_share: float | None = None
    real_codes: bool = False
    fresh_share: float | None = None

    @property
    def neighbouring_relation(self) -> dp_accounting.NeighboringRelation:
        return REPLACE_ONE

    @property
    def overflow_share(self) -> float:
        return 0.0

    @property
    def judges(self) -> int:
        """J: how many shards judge in a step."""
        return {"independent": self.images_per_step, "parameter": self.judges_per_step}.get(self.schedule, 1)

    @property
    def round_length(self) -> int:
        """Steps after which every shard that can judge has trained since."""
        in_turn = self.schedule in ("independent", "parameter")
        return math.ceil(self.num_shards / self.trained_per_step) if in_turn else 0

    @property
    def slots(self) -> int:
        """Gradients that are noised one by one in a step: one for each image, or one in all."""
        return self.images_per_step if self.in_image_space else 1

    @property
    def in_image_space(self) -> bool:
        """Whether each image's gradient is sanitised, and not the parameters'."""
        return self.schedule in IMAGE_SCHEDULES

    @property
    def proven(self) -> bool:
        """Whether ``event`` exists. In image space, a generator that is differentiated at the code of a real image
        passes that code on, clipped or not."""
        return self.schedule != "published" and not (self.real_codes and self.in_image_space)

    def deal(self, key: jax.Array) -> Shards:
        """Assigns every example to a shard, each by a draw of its own, so that no other moves when one is removed.

        Args:
          key: typed PRNG key, secret.
        """
        shard = jax.random.randint(key, (self.dataset_size,), 0, self.num_shards)
        sizes = jnp.bincount(shard, length=self.num_shards)
        return Shards(jnp.argsort(shard).astype(jnp.int32), jnp.cumsum(sizes) - sizes, sizes)

    def turn(self, key: jax.Array, step: jax.Array) -> Turn:
        """Who trains and who judges in step ``step``, counted from 0.

        Args:
          key: typed PRNG key of this step, secret and used once.

        Formal guarantees:
          Judges of ``independent`` and ``parameter`` are fresh uniform draws; who trains depends on ``step`` only.
        """
        k = self.num_shards
        if self.schedule == "published":
            one = jax.random.randint(key, (1,), 0, k)
            return Turn(one, one)
        if self.schedule == "round_robin":
            one = jnp.reshape(step % k, (1,))
            return Turn(one, one)
        training = (step * self.trained_per_step + jnp.arange(self.trained_per_step)) % k
        if self.schedule == "independent":
            return Turn(training, jax.random.randint(key, (self.images_per_step,), 0, k))
        return Turn(training, jax.random.choice(key, k, (self.judges_per_step,), replace=False))

    def draw(self, key: jax.Array, shards: Shards, members: jax.Array, count: int) -> jax.Array:
        """``count`` examples of each of some shards, uniformly with replacement: int ``[len(members), count]``.

        A shard without examples repeats those of another: mask by ``shards.sizes``.
        """
        sizes = jnp.maximum(shards.sizes[members], 1)[:, None]
        offsets = jax.random.randint(key, (members.shape[0], count), 0, sizes)
        return shards.order[jnp.minimum(shards.starts[members][:, None] + offsets, self.dataset_size - 1)]

    def transform(self, key: jax.Array) -> optax.GradientTransformationExtraArgs:
        """What is done to the gradients of one slot: judges' gradients ``[n, ...]`` -> their sanitised mean."""
        return error_feedback_aggregate(
            self.l2_norm_clip,
            2 * self.noise_multiplier,  # its unit is the clip norm, ours the distance of two clipped values
            key,
            expected_batch_size=self.images_per_step if self.in_image_space else self.judges_per_step,
            feedback=self.feedback,
            feedback_l2_norm_clip=self.feedback_l2_norm_clip,
            feedback_decay=self.feedback_decay,
            feedback_share=self.feedback_share,
            num_units=self.num_shards if self.feedback == "local" else None,
            unit_residual="vector" if self.feedback == "local" else "scalar",
            sampling="public_order" if self.schedule == "round_robin" else "without_replacement",
        )

    def initial_residual(self, params: Any, image_shape: Sequence[int]) -> Any:
        """Error feedback's residual before the first step; in image space one for each image of a step."""
        init = self.transform(fresh_key()).init
        if not self.in_image_space:
            return init(params).residual
        return jax.vmap(lambda x: init(x).residual)(jnp.zeros((self.images_per_step, *image_shape)))

    def arrange(self, key: jax.Array, records: Any) -> ShardedRecords:
        """The records, dealt to shards."""
        return ShardedRecords(records, self.deal(key))

    def open(self, records: ShardedRecords, key: jax.Array, step: jax.Array, **shared: Any) -> ShardAccess:
        """The access of one step; see ``Mechanism.open``."""
        shared.pop("mesh", None)
        return ShardAccess(self, records, key, step, **shared)

    def failure(self, steps: int) -> float:
        del steps
        return 0.0

    def with_noise(self, noise_multiplier: float) -> "ShardMechanism":
        return self._replace(noise_multiplier=noise_multiplier)

    def prepared(self, steps: int, delta: float) -> "ShardMechanism":
        """With the best split of ``hidden`` feedback's noise."""
        if self.feedback != "hidden" or self.noise_multiplier == 0 or not self.proven:
            return self
        return self._replace(fresh_share=best_fresh_share(self, steps, delta))

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps, to be composed under ``REPLACE_ONE`` (one shard by any other).

        Args:
          steps: T.
          truncated: no sampler here is.

        Raises:
          ValueError: the schedule has no proof.

        Formal guarantees:
          Unit: everything in one shard, so any one image added, removed or replaced. Condition on all randomness of
          the shards' own training, which has the same law whatever the data is. Then, given what was released, each
          shard's gradient is a constant and only the changed shard's depends on it, by at most 2C after clipping. In
          ``independent`` and ``parameter`` the judges are drawn afresh and draws influence nothing but the release,
          because training follows a public order: each release is a member (or subset) of K under ``REPLACE_ONE``, and
          composition is adaptive. In ``round_robin`` only the changed shard's own turns concern it, and ``local``
          residuals do not change that: they are part of the shard. ``private``: both channels move by at most twice
          their clip norms, whatever the share. ``hidden``: two residuals are at most 2D apart in any later step,
          whatever was drawn; the noise is split as in ``dp_sgd.hidden_feedback_event``.
        """
        del truncated
        if self.noise_multiplier == 0:
            return dp_accounting.NonPrivateDpEvent()
        if not self.proven:
            raise ValueError(
                f"schedule={self.schedule!r}, real_codes={self.real_codes} has no event: nothing is proven."
            )
        hidden, share = self.feedback == "hidden", split_of(self)
        fresh = self.noise_multiplier * math.sqrt(share if hidden else 1.0)
        events = [self._fresh_event(fresh, steps)]
        if hidden and steps > 1:
            assert self.feedback_l2_norm_clip is not None
            residual = self.noise_multiplier * math.sqrt(1 - share) * self.l2_norm_clip / self.feedback_l2_norm_clip
            events.append(gaussian_event(residual, self.slots * (steps - 1)))
        return dp_accounting.ComposedDpEvent(events)

    def _fresh_event(self, sigma: float, steps: int) -> dp_accounting.DpEvent:
        if self.schedule == "round_robin":
            return gaussian_event(sigma, self.images_per_step * math.ceil(steps / self.num_shards))
        subset, times = (1, steps * self.images_per_step) if self.schedule == "independent" else (self.judges, steps)
        if subset == self.num_shards:
            return gaussian_event(sigma, times)
        sampled = dp_accounting.SampledWithoutReplacementDpEvent(
            self.num_shards, subset, dp_accounting.GaussianDpEvent(sigma)
        )
        return dp_accounting.SelfComposedDpEvent(sampled, times)

    def epsilon(
        self,
        steps: int,
        delta: float,
        *,
        accountant: Accountant = "pld",
        truncated: bool = True,
        grid: float = FINE,
    ) -> float:
        """The proven epsilon of ``steps`` steps at ``delta``; ``inf`` where there is none.

        Where PLD has no bound, with next to no noise, it is RDP's.
        """
        if steps == 0:
            return 0.0
        if self.noise_multiplier == 0 or (self.real_codes and not self.proven):
            return math.inf
        if self.schedule == "published":
            return revealed_epsilon(self, steps, delta)
        event = self.event(steps, truncated=truncated)
        if accountant == "pld":
            by_pld = epsilon(event, delta, grid=grid, neighbouring_relation=REPLACE_ONE)
            if by_pld < math.inf:
                return by_pld
        return epsilon(event, delta, accountant="rdp", orders=COARSE_ORDERS, neighbouring_relation=REPLACE_ONE)

    def describe(self, steps: int, delta: float, epsilon_spent: float) -> Description:
        return describe(self, steps, delta, epsilon_spent)
