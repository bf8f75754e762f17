"""Checks of a ``DpSgdMechanism`` and of the batches that its transform is given: mistakes that would be silent."""

from typing import TYPE_CHECKING, Any, get_args

import jax

from efsgd_jax.privacy.checks import check_probability
from efsgd_jax.privacy.clipped_sum import ClippedSum
from efsgd_jax.privacy.feedback_options import FeedbackMode, check_per_example, check_whole

if TYPE_CHECKING:
    from efsgd_jax.privacy.dp_sgd import DpSgdMechanism


def check_mechanism(mechanism: "DpSgdMechanism") -> None:
    """Raises ``ValueError`` for options that are out of range, which would be noticed late or not at all."""
    m, q = mechanism, mechanism.sampling_probability
    check_probability(q)
    if m.dataset_size < 1 or m.capacity < 1:
        raise ValueError(f"dataset_size is {m.dataset_size} and capacity {m.capacity}; both are at least 1.")
    if not m.noise_multiplier >= 0:
        raise ValueError(f"noise_multiplier is {m.noise_multiplier:g}; it is at least 0.")
    if m.feedback not in get_args(FeedbackMode):
        raise ValueError(f"feedback is {m.feedback!r}; it is one of {', '.join(get_args(FeedbackMode))}.")
    if (m.feedback == "none") != (m.feedback_l2_norm_clip is None):
        raise ValueError(
            f"feedback={m.feedback!r} with feedback_l2_norm_clip={m.feedback_l2_norm_clip}: every mode but 'none' "
            "needs a norm for what it feeds back, such as the clip norm for local and twice the clip norm for private; "
            "'none' takes none."
        )


def check_batch(mechanism: "DpSgdMechanism", updates: Any, params: Any, state: Any, mask: Any) -> None:
    """Raises ``ValueError`` for a batch that has not the form of one of ``mechanism.sample``.

    Args:
      mechanism: the mechanism.
      updates: per-example gradients or a ``ClippedSum``.
      params: the parameters, or None.
      state: the state of the transform.
      mask: the mask that came with per-example gradients, or None.
    """
    total = isinstance(updates, ClippedSum)
    if not total:
        check_whole(updates)
        check_per_example(updates, params, state.like)  # an average is one first, and only then another batch
    sizes = {len(updates.l2_norms)} if total else {x.shape[0] for x in jax.tree.leaves(updates) if x.ndim}
    if sizes != {mechanism.capacity}:
        raise ValueError(
            f"the batch has {', '.join(map(str, sorted(sizes)))} rows; a batch of mechanism.sample has capacity = "
            f"{mechanism.capacity}."
        )
    padded = mechanism.sampling_probability < 1 or mechanism.capacity > mechanism.dataset_size
    if padded and (updates.masked if total else mask) is None:
        where = "the function that clipped_grad returns" if total else "update(..., mask=mask)"
        raise ValueError(
            "the batch has no mask: the padding rows of mechanism.sample, which are real examples, would count as "
            f"sampled. Give its mask to {where}."
        )
