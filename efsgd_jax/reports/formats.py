"""Formats numbers as text for the pages."""

import math
from typing import Any

from efsgd_jax.formatting import format_epsilon


def number(value: Any, digits: int = 4) -> str:
    """A number with ``digits`` significant digits; a dash for None."""
    if value is None:
        return "–"
    value = float(value)
    return f"{value:.{digits}g}" if math.isfinite(value) else "∞"


def epsilon_shown(value: Any) -> str:
    """A claimed or spent epsilon, rounded up; a dash for None."""
    if value is None:
        return "–"
    return format_epsilon(float(value)) if math.isfinite(float(value)) else "∞"


def percent(value: Any) -> str:
    """A share in percent, with one decimal; a dash for None."""
    return "–" if value is None else f"{100 * float(value):.1f}"
