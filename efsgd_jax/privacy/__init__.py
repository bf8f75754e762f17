"""Per-example clipping, error feedback, noise, Poisson sampling and accounting; knows nothing of images or of Flax."""

from efsgd_jax.privacy.accounting import Mechanism, dp_sgd_event, epsilon, hidden_feedback_event
from efsgd_jax.privacy.calibration import best_fresh_share, calibrate_mechanism, calibrate_noise_multiplier
from efsgd_jax.privacy.clipping import ClippedSum, clip_and_sum, clip_by_norm, clipped_grad, sensitivity_of
from efsgd_jax.privacy.feedback import ErrorFeedbackState, error_feedback_aggregate
from efsgd_jax.privacy.keys import fresh_key
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.privacy.sampling import poisson_batch, sample_capacity

__all__ = [
    "ClippedSum",
    "ErrorFeedbackState",
    "Ledger",
    "Mechanism",
    "best_fresh_share",
    "calibrate_mechanism",
    "calibrate_noise_multiplier",
    "clip_and_sum",
    "clip_by_norm",
    "clipped_grad",
    "dp_sgd_event",
    "epsilon",
    "error_feedback_aggregate",
    "fresh_key",
    "hidden_feedback_event",
    "poisson_batch",
    "sample_capacity",
    "sensitivity_of",
]
