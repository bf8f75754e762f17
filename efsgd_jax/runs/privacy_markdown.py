"""The privacy report of a run as text: ``PRIVACY.md``."""

from collections.abc import Mapping
from typing import Any

from efsgd_jax.formatting import format_epsilon


def to_markdown(report: dict[str, Any]) -> str:
    """The privacy report as Markdown. The first line states the guarantee, or that there is none and why."""
    if report["guarantee"]:
        head = f"# ({format_epsilon(report['epsilon'])}, {report['delta']:g})-differential privacy"
    else:
        head = f"# NOT PRIVATE: {report['reason_for_no_guarantee']}"
    lines = [head, ""]
    if not report["delta_below_one_over_n"]:
        n = report["public"]["dataset_size"]
        lines += [f"**Weak delta**: {report['delta']:g} is not below 1/N for N = {n}.", ""]
    for name, value in report.get("accountings", {}).items():
        shown = value if isinstance(value, str) else format_epsilon(value)
        lines += [f"- epsilon {report['accounting_meanings'][name]}: {shown}"]
    if "queries" in report:
        lines += [f"- {format_epsilon(report['training_epsilon'])} of epsilon: training"]
        lines += [
            f"- {format_epsilon(query['epsilon'])} of epsilon: the score {query['name']}, "
            "a count with discrete Laplace noise"
            for query in report["queries"]
        ]
    lines += [""] if "accountings" in report or "queries" in report else []
    not_in_table = (
        "guarantee", "reason_for_no_guarantee", "phases", "caveats", "software", "accountings", "accounting_meanings",
        "queries", "public",
    )  # fmt: skip
    lines += [_public_sentence(report["public"]), "", "| | |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in report.items() if key not in not_in_table]
    for phase in report["phases"]:
        lines += ["", f"## Phase: {phase['name']}", "", "| | |", "|---|---|"]
        facts = {k: v for k, v in phase.items() if k not in ("name", "mechanism_parameters")}
        lines += [f"| {k.replace('_', ' ')} | {v} |" for k, v in (facts | phase["mechanism_parameters"]).items()]
    lines += ["", *(f"- {caveat}" for caveat in report["caveats"]), ""]
    lines += ["Made with " + ", ".join(f"{k} {v}" for k, v in report["software"].items()) + "."]
    return "\n".join(lines) + "\n"


def _public_sentence(public: Mapping[str, Any]) -> str:
    side, channels = public["image_size"], public["channels"]
    pre_training = public.get("pre_training")
    return (
        f"Public, and not protected: that there are {public['dataset_size']} training images, of the classes "
        f"{', '.join(public['classes'])}; that an image has {side}x{side} pixels and {channels} "
        f"channel{'s' if channels > 1 else ''}; that values are read from the range {public['value_range']}."
        + (f" A network was pre-trained on public data: {pre_training}." if pre_training else "")
    )
