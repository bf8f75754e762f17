"""Differentially private image generation in JAX, with epsilons that are proven.

``fit``, ``sample`` and ``evaluate`` are what the programs of the same names do; ``error_feedback_aggregate`` is the
optax transform. The rest of the privacy core is in ``efsgd_jax.privacy``.
"""

from efsgd_jax.config import default_config, load_config
from efsgd_jax.data import Dataset, load_dataset
from efsgd_jax.errors import UserError
from efsgd_jax.privacy import error_feedback_aggregate, fresh_key
from efsgd_jax.runs.evaluate import Scores, evaluate
from efsgd_jax.runs.fit import FitResult, fit
from efsgd_jax.runs.sample import Samples, sample

__all__ = [
    "Dataset",
    "FitResult",
    "Samples",
    "Scores",
    "UserError",
    "default_config",
    "error_feedback_aggregate",
    "evaluate",
    "fit",
    "fresh_key",
    "load_config",
    "load_dataset",
    "sample",
]
