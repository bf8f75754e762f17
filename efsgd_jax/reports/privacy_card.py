"""The privacy section: the guarantee, its unit, and the facts that it depends on."""

import math
from typing import Any

from efsgd_jax.privacy.mechanism import REGION
from efsgd_jax.reports.formats import epsilon_shown, number
from efsgd_jax.reports.sections import Section
from efsgd_jax.reports.tables import Table
from efsgd_jax.reports.verdict import MODERATE
from efsgd_jax.runs.privacy_markdown import number_of_records, region_in_words, shown_parameters
from efsgd_jax.runs.statement import NO_OTHER_LEVEL

# Parameters of a mechanism in ``privacy.json`` -> their names on the page; all others are not shown.
PARAMETERS = {
    "dataset_size": "records",
    "sampling_probability": "sampling probability",
    "capacity": "batch capacity",
    "num_shards": "shards",
    "schedule": "schedule",
    "images_per_step": "images per step",
    "judges_per_step": "shards that score images in a step",
    "trained_per_step": "shards trained per step",
    "noise_multiplier": "noise multiplier",
    "budget_noise": "noise multiplier of the budget",
    "share": "share of the budget",
    "l2_norm_clip": "clip norm",
    "feedback": "error feedback",
    "feedback_l2_norm_clip": "clip norm of the feedback",
    "feedback_decay": "decay of the feedback",
    "feedback_share": "share of the feedback",
}

# Largest number of classes whose names are shown.
MOST_CLASSES = 20


def headline(privacy: dict[str, Any]) -> str:
    """The first line of a page: the guarantee, or that there is none and why."""
    if not privacy["guarantee"]:
        return f"NOT PRIVATE: {privacy['reason_for_no_guarantee']}"
    what = "regions of images, not images" if privacy.get("unit") == REGION else "images"
    return f"({epsilon_shown(privacy['epsilon'])}, {privacy['delta']:g})-differentially private {what}"


def privacy_card(privacy: dict[str, Any]) -> Section:
    """The section with the content of ``privacy.json``."""
    epsilon, delta = epsilon_shown(privacy["epsilon"]), f"{privacy['delta']:g}"
    by_rdp = epsilon_shown(privacy["epsilon_by_rdp_without_truncation"])
    figures = {"epsilon": epsilon, "delta": delta, "unit": privacy["unit"]}
    if privacy["unit"] == REGION:
        figures["levels"] = NO_OTHER_LEVEL
    if not privacy["guarantee"]:
        finite = math.isfinite(float(privacy["epsilon"]))
        figures = {"epsilon, which means nothing here" if finite else "epsilon": epsilon}
    facts = {
        "neighbouring relation": privacy["neighbouring_relation"],
        "public": _public(privacy.get("public")),
        "epsilon computed by": f"{privacy['accountant']}; the one that counts",
        "private steps": privacy["steps"],
        "target epsilon": epsilon_shown(privacy["target_epsilon"]),
        "epsilon by an older accountant (RDP), to compare with papers": by_rdp,
    }
    data = {
        "guarantee": privacy["guarantee"],
        "reason": privacy["reason_for_no_guarantee"],
        # "zero-out one: ...; the number of records N is public" without its name, and without what is listed as public.
        "difference": privacy["neighbouring_relation"].partition(": ")[2].partition(";")[0],
        "strong": float(privacy["epsilon"]) <= MODERATE,
        "scored": bool(privacy.get("queries")),
        "epsilon": epsilon,
        "delta": delta,
        "weak_delta": not privacy.get("delta_below_one_over_n", True),
        "dataset_size": privacy["phases"][0]["mechanism_parameters"]["dataset_size"],
        "figures": figures,
        "facts": facts,
        "phases": [(phase["name"], _phase(phase)) for phase in privacy["phases"]],
        "accountings": _accountings(privacy.get("accountings", {}), privacy.get("accounting_meanings", {})),
        "caveats": privacy["caveats"],
    }
    return Section("privacy", "Privacy", "privacy.html", data)


def _public(public: dict[str, Any] | None) -> str:
    if not public:  # a release by an older version lacks it
        return "the number of training images, the classes, the image size"
    classes = list(public["classes"])
    shown = ", ".join(classes[:MOST_CLASSES])
    if len(classes) > MOST_CLASSES:
        shown += f" and {len(classes) - MOST_CLASSES} more, which privacy.json lists"
    return (
        f"{number_of_records(public)}; classes {shown}; "
        f"{public['image_size']}x{public['image_size']} pixels; channels: {public['channels']}; values "
        f"{public['value_range']}"
        + (f"; pre-training on {found}" if (found := public.get("pre_training")) else "")
        + (f"; labels and all pixels outside of the region {found}" if (found := region_in_words(public)) else "")
    )


def _phase(phase: dict[str, Any]) -> dict[str, str]:
    parameters = shown_parameters(phase["mechanism_parameters"])
    return {
        "mechanism": phase["mechanism"],
        "sampler": phase["sampler"],
        "steps": str(phase["steps"]),
        "sensitivity": parameters.get("sensitivity") or number(phase["sensitivity"]),
        **_parameters(parameters),
    }


def _parameters(parameters: dict[str, Any]) -> dict[str, str]:
    shown = {}
    for key, name in PARAMETERS.items():
        value = parameters.get(key)
        if isinstance(value, dict):
            shown[name] = ", ".join(f"{part} {number(x)}" for part, x in value.items())
        elif value is not None:
            shown[name] = number(value) if isinstance(value, float) else str(value)
    return shown


def _accountings(values: dict[str, Any], meanings: dict[str, str]) -> Table | None:
    if not values:
        return None
    rows = [[meanings.get(name, name), epsilon_shown(value)] for name, value in values.items()]
    return Table(["accounting of this run", "epsilon"], rows, caption="Published accountings")
