"""HTML pages for readers: the report of one run, and the comparison of several runs."""

from efsgd_jax.reports.comparison import Comparison, compare
from efsgd_jax.reports.page import report

__all__ = ["Comparison", "compare", "report"]
