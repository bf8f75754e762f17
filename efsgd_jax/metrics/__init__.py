"""Scores of synthetic images against real ones."""

from efsgd_jax.metrics.utility import CLASSIFIERS, Utility, utility

__all__ = ["CLASSIFIERS", "Utility", "utility"]
