"""Reports that people look at: one run's page, and several runs compared."""

from efsgd_jax.pages.compare import Comparison, compare
from efsgd_jax.pages.page import report

__all__ = ["Comparison", "compare", "report"]
