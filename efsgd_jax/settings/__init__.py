"""What the configuration of each method means: its keys, their ranges, and the mechanism they describe."""

from efsgd_jax.settings.method import METHODS, Method, method_named
from efsgd_jax.settings.rules import Rule, common_rules

__all__ = ["METHODS", "Method", "Rule", "common_rules", "method_named"]
