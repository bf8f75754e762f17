"""Numbers as text, as every page shows them."""

import math
from typing import Any

from efsgd_jax.formatting import format_epsilon


def number(value: Any, digits: int = 4) -> str:
    """Significant digits; a dash for what is missing."""
    if value is None:
        return "–"
    value = float(value)
    return f"{value:.{digits}g}" if math.isfinite(value) else "∞"


def epsilon_shown(value: Any) -> str:
    """An epsilon that is claimed or spent, rounded up; a dash for what is missing."""
    if value is None:
        return "–"
    return format_epsilon(float(value)) if math.isfinite(float(value)) else "∞"


def percent(value: Any) -> str:
    """A share in percent, with one decimal; a dash for what is missing."""
    return "–" if value is None else f"{100 * float(value):.1f}"
