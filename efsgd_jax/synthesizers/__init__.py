"""The synthesis methods, one package each, and the registry that finds them by name."""

from efsgd_jax.synthesizers.base import Method
from efsgd_jax.synthesizers.config_rules import Rule, common_rules
from efsgd_jax.synthesizers.registry import method_named, method_names

__all__ = ["Method", "Rule", "common_rules", "method_named", "method_names"]
