"""The privacy report of a run: ``privacy.json`` for programs, ``PRIVACY.md`` for people."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from efsgd_jax.privacy.clipped_sum import sensitivity_of
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.privacy.mechanisms import Mechanism

CAVEATS = (
    "Scores computed on real data (gen2real and the like) are not covered by epsilon.",
    "Choosing hyperparameters by looking at results on the private data costs privacy that is not counted here.",
    "The number of examples, the list of classes and the image size are treated as public.",
)


def privacy_report(ledger: Ledger, steps: int, *, debugging_seed: bool) -> dict[str, Any]:
    """What was spent, and what that statement rests on.

    Args:
      ledger: of the run.
      steps: how many were taken.
      debugging_seed: True if anyone can know the noise.
    """
    mechanism = ledger.mechanism
    spent = ledger.report(steps)
    private = math.isfinite(spent["pld"]) and not debugging_seed
    reason = ""
    if debugging_seed:
        reason = "the noise key came from train.seed, so that anyone can subtract the noise"
    elif not private:
        reason = "no noise was added"
    return {
        "guarantee": private,
        "reason_for_no_guarantee": reason,
        "epsilon": _number(spent["pld"]),
        "delta": ledger.delta,
        "accountant": "PLD (dp-accounting), proven",
        "epsilon_by_rdp_without_truncation": _number(spent["rdp_untruncated"]),
        "target_epsilon": _number(ledger.target_epsilon),
        "delta_below_one_over_n": ledger.delta < 1 / mechanism.dataset_size,
        "unit": "one image with its label",
        "neighbouring_relation": "add or remove one",
        "mechanism": _describe(ledger),
        "mechanism_parameters": _parameters(mechanism),
        "sampler": "Poisson, truncated at capacity",
        "steps": steps,
        "sensitivity": float(sensitivity_of(mechanism.l2_norm_clip)),
        "caveats": list(CAVEATS),
        "software": {name: version(name) for name in ("efsgd_jax", "jax", "dp-accounting")},
    }


def _parameters(mechanism: Mechanism) -> dict[str, Any]:
    clip = mechanism.l2_norm_clip
    return {**mechanism._asdict(), "l2_norm_clip": dict(clip) if isinstance(clip, Mapping) else float(clip)}  # type: ignore[arg-type]


def _describe(ledger: Ledger) -> str:
    plain = "clipped sum of per-example gradients plus Gaussian noise (DP-SGD)"
    feedback = ledger.mechanism.feedback
    if feedback == "none":
        return plain
    if feedback == "local":
        return plain + "; what is clipped off stays with its example, at no cost; overflow is charged to delta"
    if feedback == "private":
        return plain + "; what is clipped off is released through a second noisy channel of the same mechanism"
    return (
        "clipped sum of per-example gradients plus clipped hidden error feedback plus Gaussian noise; assumption-free "
        f"accounting with {ledger.fresh_share:.4f} of the noise's variance on the fresh gradients"
    )


def _number(x: float) -> float | str:
    return x if math.isfinite(x) else "inf"


def to_markdown(report: dict[str, Any]) -> str:
    """``report`` for people; without a guarantee the first line says so."""
    if report["guarantee"]:
        head = f"# ({report['epsilon']:.4g}, {report['delta']:g})-differential privacy"
    else:
        head = f"# NOT PRIVATE: {report['reason_for_no_guarantee']}"
    lines = [head, ""]
    if not report["delta_below_one_over_n"]:
        n = report["mechanism_parameters"]["dataset_size"]
        lines += [f"**Weak delta**: {report['delta']:g} is not below 1/N for N = {n}.", ""]
    hidden = ("guarantee", "reason_for_no_guarantee", "mechanism_parameters", "caveats", "software")
    lines += ["| | |", "|---|---|"]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in report.items() if key not in hidden]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in report["mechanism_parameters"].items()]
    lines += ["", *(f"- {caveat}" for caveat in report["caveats"]), ""]
    lines += ["Made with " + ", ".join(f"{k} {v}" for k, v in report["software"].items()) + "."]
    return "\n".join(lines) + "\n"
