"""Reports that people look at: one run's page, and several runs compared."""

from efsgd_jax.reports.comparison import Comparison, compare
from efsgd_jax.reports.page import report

__all__ = ["Comparison", "compare", "report"]
