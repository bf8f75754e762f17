"""The audit section: the lower bound on epsilon from an attack on the released images, and the claimed epsilon."""

from collections.abc import Mapping
from typing import Any

from efsgd_jax.formatting import format_lower_bound
from efsgd_jax.reports.formats import epsilon_shown, number
from efsgd_jax.reports.sections import Mismatch, Section
from efsgd_jax.reports.tables import Table


def audit_section(audit: Mapping[str, Any], mismatch: Mismatch | None, command: str) -> Section:
    """The section with the result of the audit.

    Args:
      audit: the fields of ``efsgd_jax.audit.membership.Membership``; empty if there was no audit.
      mismatch: set if the audit is of another generator; otherwise None.
      command: the command that runs the audit.
    """
    if not audit:
        return Section("audit", "Audit", "audit.html", {"results": None, "command": command})
    claimed, bound = float(audit["claimed"]), float(audit["bound"])
    rows = [
        ["Epsilon claimed", f"{epsilon_shown(claimed)} at delta {audit['delta']:g}"],
        ["Epsilon is at least (95%)", format_lower_bound(bound)],
        ["Area under the ROC curve (guessing: 0.5)", number(audit["curve"], 3)],
        ["True positives at 1% false positives, %", number(100 * audit["rate"], 3)],
        ["Images of the training and of the test part, each", f"{audit['images']:,}"],
    ]
    data = {"refuted": bound > claimed, "results": Table(["Measure", "value"], rows), "command": command}
    return Section("audit", "Audit", "audit.html", data, covered_by_epsilon=False, mismatch=mismatch)
