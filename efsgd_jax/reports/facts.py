"""Configuration, software, and scores that were released through a noisy query."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from efsgd_jax.reports.html import Markup, definitions, epsilon_shown, paragraph, percent, section, table, tag

MAKERS = ("efsgd_jax", "jax", "flax", "numpy", "matplotlib")


def configuration_section(config: Mapping[str, Any], source: str) -> Markup:
    """Every key of the configuration."""
    shown = {key: tag("code", "(empty)" if value == "" else str(value)) for key, value in _flat(config, "")}
    return section("configuration", "Configuration", paragraph(source), definitions(shown, "facts settings"))


def _flat(group: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def software_section(trained_with: Mapping[str, str]) -> Markup:
    """What the run was trained with, and what made the page."""
    made = {name: version(name) for name in MAKERS} | {"Python": platform.python_version()}
    rows = [[name, trained_with.get(name, "–"), made.get(name, "–")] for name in {**trained_with, **made}]
    return section("software", "Software", table(["Package", "trained with", "page made with"], rows))


def released_scores_section(scores: Mapping[str, Any]) -> Markup | None:
    """``release/scores.json``: scores that a noisy query released, with the epsilon that they cost."""
    if not scores.get("scores"):
        return None
    rows = []
    for found in scores["scores"]:
        low, high = found["interval_95"]
        value = tag("span", percent(found["accuracy"]), tag("small", f"95%: {percent(low)} to {percent(high)}"))
        rows.append(
            [
                found["name"],
                value,
                epsilon_shown(found["epsilon"]),
                percent(found["noise_std"]),
                f"{found['num_test']:,}",
            ]
        )
    text = f"The {scores['mechanism']}. What they cost is in the epsilon at the top of this page."
    head = ["Score", "value, %", "epsilon", "noise, standard deviation, %", "test images"]
    return section("released-scores", "Scores released through a noisy query", paragraph(text), table(head, rows))
