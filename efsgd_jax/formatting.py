"""Numbers about privacy as text: a claim is never rounded down, and what an attack has shown is never rounded up."""

import decimal
import math


def format_epsilon(value: float, digits: int = 4) -> str:
    """An epsilon that is claimed or spent, with ``digits`` significant digits and rounded up; ``inf`` as it is.

    Args:
      value: at least 0.
      digits: significant ones; at least all before the point are shown.

    Formal guarantees:
      The number that is shown is not below ``value``'s shortest decimal form, which stands for the same float. So 10 is
      "10", and 0.49940909 is "0.4995".
    """
    return _rounded(value, digits, decimal.ROUND_CEILING)


def format_lower_bound(value: float, digits: int = 3) -> str:
    """An epsilon that an attack has shown, with ``digits`` significant digits and rounded down.

    Args:
      value: at least 0.
      digits: significant ones; at least all before the point are shown.
    """
    return _rounded(value, digits, decimal.ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    exact = decimal.Decimal(repr(float(value)))
    last = min(exact.adjusted() - digits + 1, 0)
    with decimal.localcontext() as context:
        context.prec = 400  # enough for every float
        rounded = exact.quantize(decimal.Decimal(1).scaleb(last), rounding=rounding)
    text = f"{rounded:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
