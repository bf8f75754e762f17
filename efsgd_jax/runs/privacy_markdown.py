"""The privacy report of a run as text: ``PRIVACY.md``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy.mechanism import REGION
from efsgd_jax.runs.statement import DEFAULT_RANGE, NO_OTHER_LEVEL, statement

# Fields of ``privacy.json`` and of a phase's parameters -> name in a table, and what it means.
FACTS = {
    "epsilon": ("epsilon", "what was spent, by privacy loss distributions (PLD): the guarantee"),
    "delta": ("delta", "the delta at which epsilon was computed"),
    "target_epsilon": ("target epsilon", "what could be spent at most"),
    "epsilon_by_rdp_without_truncation": (
        "epsilon by RDP",
        "that of the same noise by Renyi differential privacy, without a limit on the size of batches, as many papers "
        "state it; for comparison, not the guarantee, and usually larger",
    ),
    "neighbouring_relation": ("neighbouring relation", "the pairs of data sets that the guarantee compares"),
    "steps": ("private steps", "how often real images were read"),
}
OF_A_PHASE = {
    "mechanism": ("mechanism", "how real images are read"),
    "sampler": ("sampler", "which of them take part in a step"),
    "steps": ("steps", "how often the phase read real images"),
    "sensitivity": ("sensitivity", "the most that one record, an image or a person, can change a sum"),
    "noise_multiplier": ("noise multiplier", "standard deviation of the noise, divided by the sensitivity"),
    "budget_noise": (
        "noise multiplier of the budget",
        "that of a single release that would cost as much as all phases of this budget together",
    ),
    "sampling_probability": ("sampling probability", "with which a record takes part in a step"),
    "capacity": ("capacity", "largest number of records in a step; more are left out"),
    "share": ("share", "part of the budget of the phases that read all records"),
    "l2_norm_clip": ("clip norm", "to which a record's gradient is scaled down"),
    "feedback": ("error feedback", "what happens with the part that clipping removes"),
    "feedback_l2_norm_clip": ("clip norm of the feedback", "largest norm of what is fed back"),
    "feedback_decay": ("decay of the feedback", "factor by which it shrinks in a step"),
    "feedback_share": ("share of the feedback", "part of the budget for it"),
    "num_shards": ("shards", "disjoint parts of the images, each with a discriminator of its own"),
    "images_per_step": ("images per step", "of a shard"),
    "judges_per_step": ("judges per step", "shards that score generated images in a step"),
    "trained_per_step": ("trained per step", "shards whose discriminators are trained in a step"),
    "schedule": ("schedule", "which shards are trained in which step"),
}

# The sensitivity of a phase whose releases have several clipped sums.
OWN_NORM = "1, in units of the norm to which what a record adds to the release is clipped"


def to_markdown(report: dict[str, Any]) -> str:
    """The privacy report as Markdown. The first line states the guarantee, or that there is none and why.

    A paragraph for people follows, then what is public, and tables of all facts that the guarantee depends on.
    """
    if report["guarantee"]:
        head = f"# ({format_epsilon(report['epsilon'])}, {report['delta']:g})-differential privacy"
        head += " for a region of each image" if report["unit"] == REGION else ""
    else:
        head = f"# NOT PRIVATE: {report['reason_for_no_guarantee']}"
    levels = [f"**{NO_OTHER_LEVEL}**", ""] if report["unit"] == REGION else []
    lines = [head, "", *levels, statement(report), "", _public_sentence(report["public"]), ""]
    if not report["delta_below_one_over_n"]:
        n = report["public"]["dataset_size"]
        lines += [f"**Weak delta**: {report['delta']:g} is not below 1/N for N = {n}.", ""]
    for name, value in report.get("accountings", {}).items():
        shown = value if isinstance(value, str) else format_epsilon(value)
        lines += [f"- epsilon {report['accounting_meanings'][name]}: {shown}"]
    if "queries" in report:
        lines += [f"- {format_epsilon(report['training_epsilon'])} of epsilon: training"]
        lines += [
            f"- {format_epsilon(query['epsilon'])} of epsilon: the score {query['name']}"
            + (f" = {100 * query['accuracy']:.1f}%" if "accuracy" in query else "")
            + ", a count with discrete Laplace noise"
            + (f", of {query['num_test']} test images, a number that is public" if "num_test" in query else "")
            for query in report["queries"]
        ]
    lines += [""] if "accountings" in report or "queries" in report else []
    phases = [phase | shown_parameters(phase["mechanism_parameters"]) for phase in report["phases"]]
    lines += ["## How it was computed", "", *_table(report, FACTS)]
    for phase in phases:
        lines += ["", f"## Phase: {phase['name']}", "", *_table(phase, OF_A_PHASE)]
    lines += ["", "## The terms", ""]
    lines += [f"- **{name}**: {meaning}" for name, meaning in _terms([report], FACTS) + _terms(phases, OF_A_PHASE)]
    lines += ["", "## What is not covered", "", *(f"- {caveat}" for caveat in report["caveats"]), ""]
    lines += [
        "The mechanisms are proven in the documentation of efsgd_jax, and attacked by its audit (`efsgd audit`).",
        "Made with " + ", ".join(f"{k} {v}" for k, v in report["software"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def shown_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A mechanism's parameters, for people: the noise multiplier is that of each release.

    A phase that has a share of a budget (``FullBatchMechanism``) records the noise multiplier of the whole budget,
    which becomes ``budget_noise``.

    Examples:
      >>> shown_parameters({"noise_multiplier": 2.0, "share": 0.25, "steps": 4})["noise_multiplier"]
      8.0
    """
    share, sigma = parameters.get("share"), parameters.get("noise_multiplier")
    if share is None or sigma is None:
        return dict(parameters)
    each = sigma * math.sqrt(parameters["steps"] / share)
    return {**parameters, "noise_multiplier": each, "budget_noise": sigma, "sensitivity": OWN_NORM}


def _table(values: Mapping[str, Any], named: Mapping[str, tuple[str, str]]) -> list[str]:
    """A table of the values that are there and have a name."""
    rows = [f"| {n} | {_shown(key, values[key])} |" for key, (n, _) in named.items() if values.get(key) is not None]
    return ["| | |", "|---|---|", *rows]


def _terms(tables: Sequence[Mapping[str, Any]], named: Mapping[str, tuple[str, str]]) -> list[tuple[str, str]]:
    """The names in the tables with their meanings, each once."""
    return [term for key, term in named.items() if any(values.get(key) is not None for values in tables)]


def _shown(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{part} {_shown(key, x)}" for part, x in value.items())
    if "epsilon" in key and not isinstance(value, str):
        return format_epsilon(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def number_of_records(public: Mapping[str, Any]) -> str:
    """The size of the training data in words, from the public facts of a report."""
    n, most = public["dataset_size"], public.get("images_per_person")
    if most is None:
        return f"{n} training images"
    return f"{n} persons, of each of whom at most {most} image{'s' if most > 1 else ''} are used for training"


def region_in_words(public: Mapping[str, Any]) -> str:
    """The region of a report's public facts in words; "" if there is none.

    Examples:
      >>> region_in_words({"region": "9,9,14,14"})
      '(14x14 pixels, from row 9 and column 9, counted from 0)'
    """
    if "region" not in public:
        return ""
    top, left, height, width = public["region"].split(",")
    return f"({int(width)}x{int(height)} pixels, from row {int(top)} and column {int(left)}, counted from 0)"


def _public_sentence(public: Mapping[str, Any]) -> str:
    side, channels = public["image_size"], public["channels"]
    pre_training, declared, region = public.get("pre_training"), public["value_range"], region_in_words(public)
    values = (
        "which values stand for black and white, by the format of the files"
        if declared == DEFAULT_RANGE
        else f"that values range over {declared}"
    )
    return (
        f"Public, and not protected: that there are {number_of_records(public)}, of the classes "
        f"{', '.join(public['classes'])}; that an image has {side}x{side} pixels and {channels} "
        f"channel{'s' if channels > 1 else ''}; {values}."
        + (f" So are the labels and all pixels outside of the region {region}." if region else "")
        + (f" A network was pre-trained on public data: {pre_training}." if pre_training else "")
    )
