"""The mechanism of DP-SGD, with and without error feedback."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import dp_accounting
import jax
import optax
from scipy import stats

from efsgd_jax.privacy.accounting import FINE, Accountant, epsilon_with_failure
from efsgd_jax.privacy.checks import check_delta, check_probability, whole_number
from efsgd_jax.privacy.clipped_sum import ClipNorm, sensitivity_of
from efsgd_jax.privacy.dp_sgd_checks import check_batch, check_mechanism
from efsgd_jax.privacy.dp_sgd_events import dp_sgd_event, hidden_feedback_event
from efsgd_jax.privacy.feedback import error_feedback_aggregate
from efsgd_jax.privacy.feedback_options import FeedbackMode, Sampling
from efsgd_jax.privacy.gradient_access import GradientAccess
from efsgd_jax.privacy.hidden_split import best_fresh_share, split_of
from efsgd_jax.privacy.keys import as_typed_key, unchecked_key, warn_of_debugging_key
from efsgd_jax.privacy.mechanism import ZERO_OUT, Description
from efsgd_jax.privacy.sampling import poisson_batch

# The part of delta that is reserved for batches that overflow with ``local`` feedback.
LOCAL_OVERFLOW_SHARE = 1e-3
# Bound on the probability that one batch overflows, for which the capacity is chosen with ``local`` feedback. For the
# steps T and epsilons of practice, (1 + exp(epsilon)) T LOCAL_OVERFLOW is far below the reserved part of delta.
LOCAL_OVERFLOW = 1e-25


class DpSgdMechanism(NamedTuple):
    """The mechanism of DP-SGD: all parameters that determine the privacy cost of a training step.

    Attributes:
      dataset_size: N, the number of records, treated as public.
      sampling_probability: q of the Poisson sampler.
      capacity: padded batch size.
      noise_multiplier: sigma; 0 means no noise and no guarantee.
      l2_norm_clip: C, or one norm per parameter group. The noise's standard deviation is sigma times
        ``sensitivity_of(l2_norm_clip)``.
      feedback: mode of ``error_feedback_aggregate``.
      feedback_l2_norm_clip: D; its meaning in each mode is in ``error_feedback_aggregate``. None for ``"none"``.
      feedback_decay: decay a of the residual in ``"local"`` and ``"private"``; None for the mode's default. It does not
        change the event.
      feedback_share: rho of ``"private"``, the share of the budget that the residual channel gets; None for the
        default. The event is the same for every share.
      sampling: how batches are sampled; only ``"poisson"`` has an event here.
      fresh_share: with ``hidden`` feedback, the share of the noise's variance that the accounting assigns to the
        gradients of the step; the rest covers the residual. None for one half. Every share gives a valid bound;
        ``prepared`` chooses the best one.

    Examples:
      >>> mechanism = DpSgdMechanism(dataset_size=60_000, sampling_probability=0.01, capacity=800, noise_multiplier=1.0)
      >>> 1 < mechanism.epsilon(steps=500, delta=1e-5) < 3
      True
    """

    dataset_size: int
    sampling_probability: float
    capacity: int
    noise_multiplier: float
    l2_norm_clip: ClipNorm = 1.0
    feedback: FeedbackMode = "none"
    feedback_l2_norm_clip: float | None = None
    feedback_decay: float | None = None
    feedback_share: float | None = None
    sampling: Sampling = "poisson"
    fresh_share: float | None = None

    @property
    def proven(self) -> bool:
        return True

    @property
    def neighbouring_relation(self) -> dp_accounting.NeighboringRelation:
        """The relation by whose name dp-accounting computes ``event``; what is proven is zero-out (``describe``)."""
        return dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE

    @property
    def overflow_share(self) -> float:
        """The part of delta that is reserved for batches that overflow; 0 except for ``local`` feedback."""
        return LOCAL_OVERFLOW_SHARE if self.feedback == "local" else 0.0

    @property
    def expected_batch_size(self) -> float:
        return self.dataset_size * self.sampling_probability

    def transform(self, key: jax.Array) -> optax.GradientTransformationExtraArgs:
        """The transform that does what ``event`` describes: ``error_feedback_aggregate`` with these options.

        Its ``update`` refuses a batch that is not one of ``sample``: one that has not ``capacity`` rows, or, where
        batches are padded, one without a mask, whose padding rows would count as sampled.

        Raises:
          ValueError: an option is out of range, or ``update`` is given another batch.
        """
        check_mechanism(self)
        made = self.unchecked_transform(key)

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
            check_batch(self, updates, params, state, extra.get("mask"))
            return made.update(updates, state, params, **extra)

        return optax.GradientTransformationExtraArgs(made.init, update)

    def unchecked_transform(self, key: jax.Array) -> optax.GradientTransformationExtraArgs:
        """``transform`` for batches of any form, of which the caller must know that ``event`` describes them."""
        return error_feedback_aggregate(
            self.l2_norm_clip,
            self.noise_multiplier,
            key,
            expected_batch_size=self.expected_batch_size,
            feedback=self.feedback,
            feedback_l2_norm_clip=self.feedback_l2_norm_clip,
            feedback_decay=self.feedback_decay,
            feedback_share=self.feedback_share,
            num_units=self.dataset_size if self.feedback == "local" else None,
            sampling=self.sampling,
        )

    def initial_residual(self, params: Any) -> Any:
        """Error feedback's residual for ``params`` before the first step; ``()`` in mode ``none``."""
        return self.unchecked_transform(unchecked_key()).init(params).residual

    def arrange(self, key: jax.Array, records: Any) -> Any:
        del key
        return records

    def open(self, records: Any, key: jax.Array, step: jax.Array, **shared: Any) -> GradientAccess:
        """The access of one step; see ``Mechanism.open``."""
        del step
        return GradientAccess(self, records, key, **shared)

    def sample(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The batch that ``event`` describes: rows and mask, as ``poisson_batch`` returns them.

        Args:
          key: typed PRNG key, secret and used once.

        Raises:
          ValueError: ``sampling`` is not ``"poisson"``.
        """
        self._check_sampling()
        check_mechanism(self)
        key = as_typed_key(key)
        if self.noise_multiplier > 0:
            warn_of_debugging_key(key, "sample")
        return poisson_batch(key, self.dataset_size, self.sampling_probability, self.capacity)

    def _check_sampling(self) -> None:
        if self.sampling != "poisson":
            raise ValueError(f"sampling={self.sampling!r} has no event: only Poisson sampling is accounted for.")

    def failure(self, steps: int) -> float:
        """A bound on the probability that any batch of ``steps`` steps overflows, with ``local`` feedback.

        It is 0 for the other modes, whose event includes the truncation of batches.
        """
        if self.feedback != "local":
            return 0.0
        return steps * overflow_probability(self.dataset_size, self.sampling_probability, self.capacity)

    def with_noise(self, noise_multiplier: float) -> "DpSgdMechanism":
        return self._replace(noise_multiplier=noise_multiplier)

    def prepared(self, steps: int, delta: float) -> "DpSgdMechanism":
        """With noise and feedback ``hidden``, the same mechanism with the best ``fresh_share``; otherwise unchanged.

        The best is the one for which the epsilon of ``steps`` steps at ``delta`` is smallest.
        """
        if self.feedback != "hidden" or self.noise_multiplier == 0:
            return self
        return self._replace(fresh_share=best_fresh_share(self, steps, delta))

    def event(self, steps: int, *, truncated: bool = True) -> dp_accounting.DpEvent:
        """The event of ``steps`` steps.

        Args:
          steps: the number of steps.
          truncated: whether batches are truncated to the capacity; if not, the event is that of plain Poisson sampling,
            which RDP also supports.

        Raises:
          ValueError: ``sampling`` is not ``"poisson"``.

        Formal guarantees:
          For ``local`` the event is always that of plain Poisson sampling, which never overflows; ``epsilon`` charges
          the difference to delta.
        """
        self._check_sampling()
        check_probability(self.sampling_probability)
        if self.noise_multiplier == 0:
            return dp_accounting.NonPrivateDpEvent()
        size: dict[str, int] = {}
        if truncated and self.feedback != "local":
            size = {"dataset_size": self.dataset_size, "capacity": self.capacity}
        if self.feedback != "hidden":
            return dp_sgd_event(self.sampling_probability, self.noise_multiplier, steps, **size)
        assert self.feedback_l2_norm_clip is not None
        return hidden_feedback_event(
            self.sampling_probability,
            self.noise_multiplier,
            steps,
            l2_norm_clip=float(sensitivity_of(self.l2_norm_clip)),
            feedback_l2_norm_clip=self.feedback_l2_norm_clip,
            fresh_share=split_of(self),
            **size,
        )

    def epsilon(
        self,
        steps: int,
        delta: float,
        *,
        accountant: Accountant = "pld",
        truncated: bool = True,
        grid: float = FINE,
    ) -> float:
        """Epsilon of ``steps`` steps at ``delta``.

        It is ``inf`` without noise, and with ``local`` feedback if batches overflow too often. The arguments are those
        of ``Accounted.epsilon``.

        Formal guarantees:
          For ``local``: with probability 1 - p per step the batch does not overflow, and the step is that of plain
          Poisson sampling, on both neighbours; see ``accounting.epsilon_with_failure``.
        """
        check_delta(delta)
        steps = whole_number(steps)
        check_mechanism(self)
        if steps == 0:
            return 0.0
        if self.noise_multiplier == 0:
            return math.inf
        return epsilon_with_failure(
            self.event(steps, truncated=truncated), delta, self.overflow_share, self.failure(steps),
            accountant=accountant, grid=grid,
        )  # fmt: skip

    def describe(self, steps: int, delta: float, epsilon_spent: float) -> Description:
        """What the mechanism does and for which neighbouring relation it is proven, in words, as in a report."""
        del steps, delta, epsilon_spent
        clip = self.l2_norm_clip
        everything = self.sampling_probability >= 1 and self.capacity >= self.dataset_size
        return Description(
            summary="clipped sum of per-example gradients plus Gaussian noise (DP-SGD)" + self._feedback_summary(),
            sampler="none: all records take part" if everything else "Poisson, truncated at capacity",
            neighbouring_relation=ZERO_OUT,
            sensitivity=float(sensitivity_of(clip)),
            parameters={
                **self._asdict(),
                "l2_norm_clip": dict(clip) if isinstance(clip, Mapping) else clip,
            },
        )

    def _feedback_summary(self) -> str:
        return {
            "none": "",
            "local": "; what clipping cuts off stays with its example, at no cost; overflow is charged to delta",
            "private": "; what clipping cuts off is released through a second noisy channel of the same mechanism",
            "hidden": (
                "; clipped hidden error feedback in the same sum; assumption-free accounting with "
                f"{split_of(self):.4f} of the noise's variance on the fresh gradients"
            ),
        }[self.feedback]


def overflow_probability(dataset_size: int, sampling_probability: float, capacity: int) -> float:
    """The probability that a Poisson sample from N = ``dataset_size`` examples has more than ``capacity`` of them.

    Each example is in the sample independently, with the probability ``sampling_probability``.

    Examples:
      >>> overflow_probability(dataset_size=1000, sampling_probability=0.1, capacity=1000)
      0.0
    """
    return float(stats.binom.sf(capacity, dataset_size, sampling_probability))
