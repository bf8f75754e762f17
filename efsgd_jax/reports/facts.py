"""The sections on configuration, software, and scores that were released by noisy queries."""

import platform
from collections.abc import Iterator, Mapping
from typing import Any

from efsgd_jax.reports.formats import epsilon_shown, percent
from efsgd_jax.reports.sections import Section
from efsgd_jax.reports.tables import Cell, Table
from efsgd_jax.versions import version_of

# The packages with which the page is made.
MAKERS = ("efsgd_jax", "jax", "flax", "numpy", "matplotlib")


def configuration_section(config: Mapping[str, Any], *, published: bool) -> Section:
    """The section with every key of ``config``.

    Args:
      config: the configuration, as a dictionary of groups.
      published: whether it is the published one, from which the caller has left out the keys that must stay private.
    """
    data = {"published": published, "settings": {key: str(value) for key, value in flat(config, "")}}
    return Section("configuration", "Configuration", "configuration.html", data)


def flat(group: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The keys of groups in groups, each with its value: ``group.key``."""
    for key, value in group.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def software_section(trained_with: Mapping[str, str]) -> Section:
    """The section with the versions of packages that the run was trained with, and that the page was made with."""
    made = {name: version_of(name) for name in MAKERS} | {"Python": platform.python_version()}
    rows = [[name, trained_with.get(name, "–"), made.get(name, "–")] for name in {**trained_with, **made}]
    versions = Table(["Package", "trained with", "page made with"], rows)
    return Section("software", "Software", "software.html", {"versions": versions})


def released_scores_section(scores: Mapping[str, Any]) -> Section | None:
    """The section with scores that were released by noisy queries, and the epsilon of each; None if there are none.

    Args:
      scores: content of ``release/scores.json``.
    """
    if not scores.get("scores"):
        return None
    head = ["Score", "value, %", "epsilon", "noise, standard deviation, %", "test images"]
    data = {"mechanism": scores["mechanism"], "scores": Table(head, [_released(found) for found in scores["scores"]])}
    return Section(
        "released-scores", "Scores", "released-scores.html", data, title="Scores released through a noisy query"
    )


def _released(found: Mapping[str, Any]) -> list[str | Cell]:
    low, high = found["interval_95"]
    return [
        str(found["name"]),
        Cell(percent(found["accuracy"]), f"95%: {percent(low)} to {percent(high)}"),
        epsilon_shown(found["epsilon"]),
        percent(found["noise_std"]),
        f"{found['num_test']:,}",
    ]
