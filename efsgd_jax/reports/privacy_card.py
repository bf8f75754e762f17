"""The privacy card: what is guaranteed, to whom, and what the statement rests on."""

import math
from typing import Any

from efsgd_jax.reports.html import (
    Markup,
    bullets,
    definitions,
    epsilon_shown,
    join,
    number,
    paragraph,
    section,
    table,
    tag,
)

PARAMETERS = {
    "dataset_size": "training images",
    "sampling_probability": "sampling probability",
    "capacity": "batch capacity",
    "num_shards": "shards",
    "schedule": "schedule",
    "images_per_step": "images per step",
    "judges_per_step": "judges per step",
    "trained_per_step": "shards trained per step",
    "noise_multiplier": "noise multiplier",
    "l2_norm_clip": "clip norm",
    "feedback": "error feedback",
    "feedback_l2_norm_clip": "clip norm of the feedback",
    "feedback_decay": "decay of the feedback",
    "feedback_share": "share of the feedback",
}


def headline(privacy: dict[str, Any]) -> str:
    """The first line of a page."""
    if not privacy["guarantee"]:
        return f"NOT PRIVATE: {privacy['reason_for_no_guarantee']}"
    return f"({epsilon_shown(privacy['epsilon'])}, {privacy['delta']:g})-differentially private images"


def privacy_card(privacy: dict[str, Any]) -> Markup:
    """``privacy.json`` for people."""
    epsilon = float(privacy["epsilon"])
    figures = {"epsilon": epsilon_shown(epsilon), "delta": f"{privacy['delta']:g}", "unit": privacy["unit"]}
    if not privacy["guarantee"]:
        figures = {"epsilon, which means nothing here" if math.isfinite(epsilon) else "epsilon": epsilon_shown(epsilon)}
    facts = {
        "neighbouring relation": privacy["neighbouring_relation"],
        "public": _public(privacy.get("public")),
        "mechanism": privacy["mechanism"],
        "sampler": privacy["sampler"],
        "accountant": privacy["accountant"],
        "private steps": privacy["steps"],
        "sensitivity of the sum": number(privacy["sensitivity"]),
        "target epsilon": epsilon_shown(privacy["target_epsilon"]),
        "epsilon by RDP, without truncation": epsilon_shown(privacy["epsilon_by_rdp_without_truncation"]),
        **_parameters(privacy["mechanism_parameters"]),
    }
    return section(
        "privacy",
        "Privacy",
        _statement(privacy),
        _weak_delta(privacy),
        definitions(figures, "figures"),
        definitions(facts),
        _accountings(privacy.get("accountings", {}), privacy.get("accounting_meanings", {})),
        tag("h3", "Caveats"),
        bullets(privacy["caveats"]),
    )


def _public(public: dict[str, Any] | None) -> str:
    if not public:  # of an older release
        return "the number of training images, the classes, the image size"
    return (
        f"{public['dataset_size']} training images; classes {', '.join(public['classes'])}; "
        f"{public['image_size']}x{public['image_size']} pixels; channels: {public['channels']}; values "
        f"{public['value_range']}"
    )


def _statement(privacy: dict[str, Any]) -> Markup:
    if not privacy["guarantee"]:
        return paragraph(
            tag("strong", "NOT PRIVATE. "),
            f"{privacy['reason_for_no_guarantee']}. Nothing about this run may be published as private.",
            class_="notice bad",
        )
    return paragraph(
        tag("strong", "Proven. "),
        f"For every two training sets that are neighbours ({privacy['neighbouring_relation']}), the probability of any "
        f"released generator differs by a factor of at most exp({epsilon_shown(privacy['epsilon'])}), but for a "
        f"probability of {privacy['delta']:g}. Images drawn from the generator inherit this, however many.",
        class_="notice good",
    )


def _weak_delta(privacy: dict[str, Any]) -> Markup | None:
    if privacy.get("delta_below_one_over_n", True):
        return None
    n = privacy["mechanism_parameters"].get("dataset_size")
    return paragraph(
        tag("strong", "Weak delta. "),
        f"{privacy['delta']:g} is not below 1/N for N = {n}: such a delta allows publishing somebody's image outright.",
        class_="notice bad",
    )


def _parameters(parameters: dict[str, Any]) -> dict[str, str]:
    shown = {}
    for key, name in PARAMETERS.items():
        value = parameters.get(key)
        if isinstance(value, dict):
            shown[name] = ", ".join(f"{part} {number(x)}" for part, x in value.items())
        elif value is not None:
            shown[name] = number(value) if isinstance(value, float) else str(value)
    return shown


def _accountings(values: dict[str, Any], meanings: dict[str, str]) -> Markup | None:
    if not values:
        return None
    rows = [[meanings.get(name, name), epsilon_shown(value)] for name, value in values.items()]
    note = paragraph("Only the proven epsilon is a guarantee; the others are there for comparison with papers.")
    return join(table(["accounting of this run", "epsilon"], rows, caption="Published accountings"), note)
