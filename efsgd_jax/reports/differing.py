"""Which settings differ between runs: a table beside their scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from efsgd_jax.reports.facts import flat
from efsgd_jax.reports.tables import Table


def differing(configs: Sequence[Mapping[str, Any]]) -> Table | None:
    """The settings that all runs have and in which they differ, a column for each run; None if there are none.

    Runs of different methods have few settings in common; of those, the table is complete too.

    Args:
      configs: the public configurations, dictionaries of groups.

    Examples:
      >>> table = differing([{"method": {"contrast": 1.5, "poses": 8}}, {"method": {"contrast": 1.0, "poses": 8}}])
      >>> table.head, table.rows
      (['Setting', 'run 1', 'run 2'], [['method.contrast', '1.5', '1.0']])
    """
    settings = [{key: str(value) for key, value in flat(config, "")} for config in configs]
    common = [key for key in settings[0] if all(key in s for s in settings)]
    rows = [[key, *(s[key] for s in settings)] for key in common if len({s[key] for s in settings}) > 1]
    return Table(["Setting", *(f"run {i}" for i in range(1, len(configs) + 1))], rows) if rows else None
