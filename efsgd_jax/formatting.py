"""Epsilons as text: claims are rounded up, and lower bounds from attacks are rounded down."""

import decimal
import math


def format_epsilon(value: float, digits: int = 4) -> str:
    """Formats an epsilon that is claimed or spent, rounded up to ``digits`` significant digits; ``inf`` is "inf".

    Args:
      value: the epsilon, at least 0.
      digits: number of significant digits; all digits before the decimal point are always shown.

    Formal guarantees:
      The number in the text is not below the shortest decimal form of ``value`` (its ``repr``). So 10 is "10", and
      0.49940909 is "0.4995".
    """
    return _rounded(value, digits, decimal.ROUND_CEILING)


def format_lower_bound(value: float, digits: int = 3) -> str:
    """Formats an attack's lower bound of epsilon, rounded down to ``digits`` significant digits; ``inf`` is "inf".

    Args:
      value: the lower bound, at least 0.
      digits: number of significant digits; all digits before the decimal point are always shown.
    """
    return _rounded(value, digits, decimal.ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    exact = decimal.Decimal(repr(float(value)))
    last = min(exact.adjusted() - digits + 1, 0)  # the exponent of the last digit that is kept
    with decimal.localcontext() as context:
        context.prec = 400  # enough for every float
        rounded = exact.quantize(decimal.Decimal(1).scaleb(last), rounding=rounding)
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
