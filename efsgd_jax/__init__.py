"""Differentially private image generation in JAX, with proven epsilons.

``fit`` (``python -m efsgd_jax.train``), ``sample``, ``evaluate``, ``report`` and ``compare`` are the functions behind
the command-line programs. ``error_feedback_aggregate`` is the optax transform. All other functions for differential
privacy are in ``efsgd_jax.privacy``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from efsgd_jax.config import default_config, load_config
    from efsgd_jax.data import Dataset, load_dataset
    from efsgd_jax.errors import UserError
    from efsgd_jax.evaluation.evaluate import Scores, evaluate, evaluate_samples
    from efsgd_jax.evaluation.release_score import ReleasedScore, release_score
    from efsgd_jax.privacy import error_feedback_aggregate, fresh_key
    from efsgd_jax.reports import Comparison, report
    from efsgd_jax.reports.comparison import compare
    from efsgd_jax.runs.fit import FitResult, fit
    from efsgd_jax.runs.sampling import Samples, sample, write_samples

__all__ = [
    "Comparison",
    "Dataset",
    "FitResult",
    "ReleasedScore",
    "Samples",
    "Scores",
    "UserError",
    "compare",
    "default_config",
    "error_feedback_aggregate",
    "evaluate",
    "evaluate_samples",
    "fit",
    "fresh_key",
    "load_config",
    "load_dataset",
    "release_score",
    "report",
    "sample",
    "write_samples",
]

# The submodule of each name. It is imported when the name is first used, so that a program that only computes epsilons
# imports neither Flax nor the data sources.
_HOME = {
    "Comparison": "reports",
    "Dataset": "data",
    "FitResult": "runs.fit",
    "ReleasedScore": "evaluation.release_score",
    "Samples": "runs.sampling",
    "Scores": "evaluation.evaluate",
    "UserError": "errors",
    "compare": "reports",
    "default_config": "config",
    "error_feedback_aggregate": "privacy",
    "evaluate": "evaluation.evaluate",
    "evaluate_samples": "evaluation.evaluate",
    "fit": "runs.fit",
    "fresh_key": "privacy",
    "load_config": "config",
    "load_dataset": "data",
    "release_score": "evaluation.release_score",
    "report": "reports",
    "sample": "runs.sampling",
    "write_samples": "runs.sampling",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from efsgd_jax.versions import version_of

        return version_of("efsgd_jax")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
