"""The methods: one package each, and the registry of their names."""

from efsgd_jax.synthesizers.config_rules import Rule, common_rules
from efsgd_jax.synthesizers.registry import METHODS, Method, method_named

__all__ = ["METHODS", "Method", "Rule", "common_rules", "method_named"]
