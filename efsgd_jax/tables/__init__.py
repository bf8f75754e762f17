"""Synthetic rows of small tables, such as labels and metadata beside images, by a private Born machine."""

from efsgd_jax.tables.columns import Columns
from efsgd_jax.tables.fit import Options, fit_table
from efsgd_jax.tables.table import Table

__all__ = ["Columns", "Options", "Table", "fit_table"]
