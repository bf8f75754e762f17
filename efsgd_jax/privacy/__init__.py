"""Per-example clipping, error feedback, noise, Poisson sampling and accounting, for any data and any parameters.

Nothing in this package depends on images or on Flax.
"""

from efsgd_jax.privacy.access import Access, UndeclaredReleaseError
from efsgd_jax.privacy.accounting import epsilon, gaussian_event
from efsgd_jax.privacy.calibration import (
    calibrate_mechanism,
    calibrate_noise_multiplier,
    calibrate_steps,
)
from efsgd_jax.privacy.clipped_sum import ClippedSum, clip_and_sum, clip_by_norm, sensitivity_of
from efsgd_jax.privacy.clipping import clipped_grad
from efsgd_jax.privacy.dp_sgd import DpSgdMechanism, overflow_probability
from efsgd_jax.privacy.dp_sgd_events import dp_sgd_event, hidden_feedback_event
from efsgd_jax.privacy.feedback import ErrorFeedbackState, error_feedback_aggregate
from efsgd_jax.privacy.feedback_options import outer_clip
from efsgd_jax.privacy.full_batch import FullBatchMechanism
from efsgd_jax.privacy.ghost import clipping_plan
from efsgd_jax.privacy.hidden_split import best_fresh_share
from efsgd_jax.privacy.keys import fresh_key
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.privacy.mechanism import Mechanism
from efsgd_jax.privacy.plan import Budget, Composition, PlannedPhase, calibrate_plan
from efsgd_jax.privacy.regions import blank_region, blanked_grad, box, masked_clipped_grad
from efsgd_jax.privacy.residuals import unit_lengths
from efsgd_jax.privacy.sampling import poisson_batch, sample_capacity
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.privacy.sum_terms import OuterSum, SquareSum, VectorSum

__all__ = [
    "Access",
    "Budget",
    "ClippedSum",
    "Composition",
    "DpSgdMechanism",
    "ErrorFeedbackState",
    "FullBatchMechanism",
    "Ledger",
    "Mechanism",
    "OuterSum",
    "PlannedPhase",
    "SquareSum",
    "SumAccess",
    "UndeclaredReleaseError",
    "VectorSum",
    "best_fresh_share",
    "blank_region",
    "blanked_grad",
    "box",
    "calibrate_mechanism",
    "calibrate_noise_multiplier",
    "calibrate_plan",
    "calibrate_steps",
    "clip_and_sum",
    "clip_by_norm",
    "clipped_grad",
    "clipping_plan",
    "dp_sgd_event",
    "epsilon",
    "error_feedback_aggregate",
    "fresh_key",
    "gaussian_event",
    "hidden_feedback_event",
    "masked_clipped_grad",
    "outer_clip",
    "overflow_probability",
    "poisson_batch",
    "sample_capacity",
    "sensitivity_of",
    "unit_lengths",
]
