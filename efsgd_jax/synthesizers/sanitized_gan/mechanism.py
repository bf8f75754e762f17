"""Sanitised gradients from disjoint shards: which shards train and which score images, and the privacy cost of that.

The data is divided into K shards. Each shard trains its own networks (a discriminator, for instance) on its raw images.
A scoring shard is one whose discriminator scores generated images in a step. It releases a gradient that is clipped to
C and noised with std ``2 C sigma``: whatever a shard holds, the clipped gradient changes by at most 2C. Four schedules
decide which shards train and which score images (``privacy/subset.py`` has the accountant):

===============  ==========================================  ======================================================
schedule         shards that train, and that score           T steps are accounted for as
===============  ==========================================  ======================================================
``published``    a random shard trains, then scores all B    no amplification: see ``revealed.revealed_epsilon``
                 images of the step
``round_robin``  one shard, in a public order, trains, then  ``Gaussian(sigma / sqrt(B))``, ``ceil(T / K)`` times
                 scores all B images
``independent``  U shards, in a public order, train; every   ``one-of-K(Gaussian(sigma))``, T B times
                 image is scored by a random shard
``parameter``    U shards, in a public order, train; each    ``M-of-K(Gaussian(sigma))``, T times
                 of M random scoring shards has one clipped
                 gradient, for all parameters of the generator
===============  ==========================================  ======================================================

In ``parameter`` the gradient with respect to the generator's parameters is sanitised, in the others that of each image.
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
from efsgd_jax.privacy.keys import unchecked_key
from efsgd_jax.privacy.mechanism import Description
from efsgd_jax.privacy.subset import ADD_OR_REMOVE_ONE, REPLACE_ONE
from efsgd_jax.synthesizers.sanitized_gan.access import ShardAccess, ShardedRecords
from efsgd_jax.synthesizers.sanitized_gan.description import describe
from efsgd_jax.synthesizers.sanitized_gan.revealed import revealed_epsilon

Schedule = Literal["published", "round_robin", "independent", "parameter"]
# Schedules in which the gradient with respect to each image is sanitised, not that with respect to the parameters.
IMAGE_SCHEDULES = ("published", "round_robin", "independent")


class Turn(NamedTuple):
    """The shards that train in one step, int ``[U]``, and those that score images, int ``[J]``: B / J images each."""

    training: jax.Array
    scoring: jax.Array


class Shards(NamedTuple):
    """The assignment of examples to shards: ``order`` int ``[N]`` has the examples' indices, sorted by shard; shard k
    has ``sizes[k]`` of them, from position ``starts[k]`` (int ``[K]``)."""

    order: jax.Array
    starts: jax.Array
    sizes: jax.Array


class ShardMechanism(NamedTuple):
    """Everything that the privacy cost of a step with sanitised gradients depends on.

    Attributes:
      dataset_size: number N of examples, treated as public.
      num_shards: number K of shards.
      schedule: which shards train and which score images in each step; see the module's docstring.
      noise_multiplier: sigma, the noise's standard deviation divided by ``2 C``; 0 means no noise and no guarantee.
      l2_norm_clip: clip norm C of a gradient.
      images_per_step: number B of generated images in a step.
      judges_per_step: number M of scoring shards in a step, in ``parameter`` only.
      trained_per_step: number U of shards that train in a step, in ``independent`` and ``parameter``. Costs no epsilon.
      feedback: mode of ``error_feedback_aggregate``; ``local``, a residual for each shard, is for ``round_robin`` only.
      feedback_l2_norm_clip: D; its meaning in each mode is in ``error_feedback_aggregate``.
      feedback_decay: decay a of ``local`` and ``private``. Costs no epsilon.
      feedback_share: share rho of ``private``. Costs no epsilon.
      real_codes: whether some generated images are reconstructed from codes of real images.
      fresh_share: with ``hidden``, the share of the noise's variance that the accounting assigns to the gradients of
        the step; the rest covers the residual. None for one half.
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
        """``REPLACE_ONE`` where shards are sampled. Otherwise a step is a Gaussian release whichever way a record
        changes, also if it is blanked, so that it composes with mechanisms for ``ADD_OR_REMOVE_ONE``."""
        every = self.schedule == "parameter" and self.num_scoring == self.num_shards
        return ADD_OR_REMOVE_ONE if every or self.schedule == "round_robin" else REPLACE_ONE

    @property
    def overflow_share(self) -> float:
        return 0.0

    @property
    def num_scoring(self) -> int:
        """The number J of scoring shards in a step, counted with multiplicity."""
        return {"independent": self.images_per_step, "parameter": self.judges_per_step}.get(self.schedule, 1)

    @property
    def round_length(self) -> int:
        """Number of consecutive steps in which every shard trains; 0 if a shard always trains in the step it scores."""
        in_turn = self.schedule in ("independent", "parameter")
        return math.ceil(self.num_shards / self.trained_per_step) if in_turn else 0

    @property
    def slots(self) -> int:
        """Number of sanitised gradients in a step: B, one for each image, in image space; otherwise 1."""
        return self.images_per_step if self.in_image_space else 1

    @property
    def in_image_space(self) -> bool:
        """Whether the gradient with respect to each image is sanitised, not that with respect to the parameters."""
        return self.schedule in IMAGE_SCHEDULES

    @property
    def proven(self) -> bool:
        """Whether ``event`` exists. Not for ``published``, nor for ``real_codes`` in image space: there the generator's
        derivative at the code of a real image reveals that code, whether or not the gradient is clipped."""
        return self.schedule != "published" and not (self.real_codes and self.in_image_space)

    def deal(self, key: jax.Array) -> Shards:
        """Assigns every example to a random shard, independently, so that removing one does not move any other.

        Args:
          key: typed PRNG key, secret.
        """
        shard = jax.random.randint(key, (self.dataset_size,), 0, self.num_shards)
        sizes = jnp.bincount(shard, length=self.num_shards)
        return Shards(jnp.argsort(shard).astype(jnp.int32), jnp.cumsum(sizes) - sizes, sizes)

    def turn(self, key: jax.Array, step: jax.Array) -> Turn:
        """The shards that train and those that score images in a step.

        Args:
          key: typed PRNG key of step ``step`` (counted from 0), secret and used once.

        Formal guarantees:
          In ``independent`` and ``parameter`` the scoring shards are sampled afresh and uniformly, and which shards
          train depends on ``step`` only.
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
        """Samples indices of ``count`` examples of each shard in ``members``: int ``[len(members), count]``.

        Sampling is uniform, with replacement. The indices for a shard without examples are those of another shard's
        examples: the caller must discard whatever is computed from them where ``shards.sizes`` is 0.
        """
        sizes = jnp.maximum(shards.sizes[members], 1)[:, None]
        offsets = jax.random.randint(key, (members.shape[0], count), 0, sizes)
        return shards.order[jnp.minimum(shards.starts[members][:, None] + offsets, self.dataset_size - 1)]

    def transform(self, key: jax.Array) -> optax.GradientTransformationExtraArgs:
        """The optax transform that clips gradients ``[n, ...]``, adds noise to their sum, and divides by a batch size.

        In ``parameter`` there is one row for each of the n = M scoring shards, and the sum is divided by M. In image
        space the transform is applied to each of the B images by itself (n = 1, under ``vmap``). The row is the
        gradient of that image's own loss, and is divided by B, since the generator's loss is the mean over the images.
        """
        return error_feedback_aggregate(
            self.l2_norm_clip,
            2 * self.noise_multiplier,  # the transform multiplies this number by C, whereas sigma is relative to 2 C
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
        """The residual of error feedback before the first step; in image space, one for each image of a step."""
        init = self.transform(unchecked_key()).init
        if not self.in_image_space:
            return init(params).residual
        return jax.vmap(lambda x: init(x).residual)(jnp.zeros((self.images_per_step, *image_shape)))

    def arrange(self, key: jax.Array, records: Any) -> ShardedRecords:
        """Assigns the records to shards at random; see ``deal``."""
        return ShardedRecords(records, self.deal(key))

    def open(self, records: ShardedRecords, key: jax.Array, step: jax.Array, **shared: Any) -> ShardAccess:
        """Opens the access of one step; see ``Mechanism.open``."""
        shared.pop("mesh", None)
        return ShardAccess(self, records, key, step, **shared)

    def failure(self, steps: int) -> float:
        del steps
        return 0.0

    def with_noise(self, noise_multiplier: float) -> "ShardMechanism":
        return self._replace(noise_multiplier=noise_multiplier)

    def prepared(self, steps: int, delta: float) -> "ShardMechanism":
        """With ``hidden``, noise and a proof, a copy with the ``fresh_share`` of the lowest epsilon by RDP."""
        if self.feedback != "hidden" or self.noise_multiplier == 0 or not self.proven:
            return self
        return self._replace(fresh_share=best_fresh_share(self, steps, delta))

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps, for ``neighbouring_relation``. No sample is truncated, whatever ``truncated``.

        Raises:
          ValueError: nothing is proven for the schedule.

        Formal guarantees:
          The unit is the content of one shard, which includes adding, removing or replacing any one image. Condition on
          all randomness of the shards' own training, which has the same law whatever the data is. Given what was
          released, each shard's gradient is then constant; only the changed shard's differs, by at most 2C clipped.
          In ``independent`` and ``parameter`` the scoring shards are sampled afresh, and the sample influences nothing
          but the release, because training follows a public order: each release is one member (or a subset) of K under
          ``REPLACE_ONE``, and composition is adaptive. In ``round_robin`` the changed shard affects only its own turns,
          also with ``local`` residuals, which are part of the shard. ``private``: both channels change by at most twice
          their clip norms, whatever the share. ``hidden``: two residuals are at most 2D apart in any later step,
          whatever was sampled; the noise is split as in ``dp_sgd_events.hidden_feedback_event``.
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
        independent = self.schedule == "independent"
        subset, times = (1, steps * self.images_per_step) if independent else (self.num_scoring, steps)
        if subset == self.num_shards:
            return gaussian_event(sigma, times)
        sampled = dp_accounting.SampledWithoutReplacementDpEvent(
            self.num_shards, subset, dp_accounting.GaussianDpEvent(sigma)
        )
        return dp_accounting.SelfComposedDpEvent(sampled, times)

    def epsilon(
        self, steps: int, delta: float, *, accountant: Accountant = "pld", truncated: bool = True, grid: float = FINE
    ) -> float:
        """The proven epsilon (see ``Mechanism.epsilon``); ``inf`` without noise, or if nothing is proven.

        For ``published`` it is ``revealed_epsilon``. Where PLD has no finite bound (very little noise), RDP's is used.
        """
        if steps == 0:
            return 0.0
        if self.noise_multiplier == 0 or (self.real_codes and not self.proven):
            return math.inf
        if self.schedule == "published":
            return revealed_epsilon(self, steps, delta)
        event, relation = self.event(steps, truncated=truncated), self.neighbouring_relation
        if accountant == "pld":
            by_pld = epsilon(event, delta, grid=grid, neighbouring_relation=relation)
            if by_pld < math.inf:
                return by_pld
        return epsilon(event, delta, accountant="rdp", orders=COARSE_ORDERS, neighbouring_relation=relation)

    def describe(self, steps: int, delta: float, epsilon_spent: float) -> Description:
        return describe(self, steps, delta, epsilon_spent)
