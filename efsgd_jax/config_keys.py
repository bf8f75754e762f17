"""All keys of a method's configuration, with type, default, range and meaning, as ``--help=KEY`` prints them."""

import dataclasses
import inspect
import re
import textwrap
from typing import Any, NamedTuple, get_args

from ml_collections import ConfigDict

from efsgd_jax.config import default_config
from efsgd_jax.config_groups import GROUPS
from efsgd_jax.privacy.feedback_options import FeedbackMode
from efsgd_jax.synthesizers import common_rules, method_named, method_names

# An entry of the section ``Attributes:`` of a docstring: a name, and a text with its continuation lines.
ENTRY = re.compile(r"^      (\w+): (.*(?:\n        .*)*)", re.M)


class Key(NamedTuple):
    """One key of the configuration.

    Attributes:
      name: dotted name of the key.
      kind: name of the type of its value.
      default: default value.
      must_be: the range of values, in words; "" if any value is accepted.
      meaning: the meaning of the key, from the docstring of its group.
    """

    name: str
    kind: str
    default: Any
    must_be: str
    meaning: str


def meanings_of(group: Any) -> dict[str, str]:
    """The meaning of each field of a dataclass, from the docstrings of the class and of its bases; "" if not stated."""
    found: dict[str, str] = {}
    for owner in reversed(type(group).__mro__):
        for name, text in ENTRY.findall(_attributes(inspect.getdoc(owner) or "")):
            found[name] = " ".join(text.split())
    return {field.name: found.get(field.name, "") for field in dataclasses.fields(group)}


def _attributes(docstring: str) -> str:
    """The section ``Attributes:`` of a docstring, indented as in the source."""
    _, _, section = docstring.partition("Attributes:\n")
    return textwrap.indent(textwrap.dedent(section), "      ")


def ranges(method: str) -> dict[str, str]:
    """The range of each key that has one, in words: its rules in all feedback modes, joined by "; ".

    If a key must be at least 0 by one rule and at least 1 by another, only the latter is listed.
    """
    config = default_config(method)
    found: dict[str, list[str]] = {}
    for mode in get_args(FeedbackMode):
        config.privacy.feedback = mode
        for key, _, _, wanted in [*common_rules(config), *method_named(method).rules(config)]:
            rules = found.setdefault(key, [])
            rules += [wanted] * (wanted not in rules)
    for rules in found.values():
        if "at least 1" in rules and "at least 0" in rules:
            rules.remove("at least 0")
        rules.sort(key=lambda rule: rule.startswith("at most"))
    return {key: "; ".join(rules) for key, rules in found.items()}


def config_keys(method: str) -> list[Key]:
    """All keys of a method, in the order of the configuration."""
    config, rules = default_config(method), ranges(method)
    found = [Key("method.name", "str", method, f"one of {', '.join(method_names())}", "the synthesis method.")]
    for name, group in [*GROUPS.items(), *method_named(method).defaults().items()]:
        meanings = meanings_of(group)
        for field in dataclasses.fields(group):
            key, value = f"{name}.{field.name}", config[name][field.name]
            found = [k for k in found if k.name != key]  # the method's own default replaces it
            default = value.to_dict() if isinstance(value, ConfigDict) else value
            must_be = rules.get(key) or next((w for k, w in rules.items() if k.startswith(f"{key}.")), "")
            found.append(Key(key, type(default).__name__, default, must_be, meanings[field.name]))
    order = list(config)
    return sorted(found, key=lambda k: order.index(k.name.split(".")[0]))


def explain(config: ConfigDict, text: str) -> str:
    """A description of the keys whose names contain ``text``, to be printed to a terminal, with their values in a
    configuration."""
    lines = []
    for key in config_keys(config.method.name):
        if text in key.name:
            group, _, name = key.name.partition(".")
            value = config[group][name]
            value = value.to_dict() if isinstance(value, ConfigDict) else value
            lines += _described(key, "" if value == key.default else f"; here {value!r}")
    return "\n".join(lines)


def explain_all(text: str) -> str:
    """A description of the keys of all methods whose names contain ``text``, each once, with the methods that have it.

    A key whose default is not the same in all methods is listed for each default.
    """
    found: dict[str, tuple[Key, list[str]]] = {}
    for method in method_names():
        for key in config_keys(method):
            if key.name == "method.name":
                key = key._replace(default=default_config().method.name)
            if text in key.name:
                found.setdefault(repr(key), (key, []))[1].append(method)
    lines = []
    for key, methods in found.values():
        lines += _described(key, "" if len(methods) == len(method_names()) else f"; of {', '.join(methods)}")
    return "\n".join(lines)


def _described(key: Key, more: str) -> list[str]:
    return [
        f"--config.{key.name}  ({key.kind}, default {key.default!r}{more})",
        *textwrap.wrap(key.meaning, 100, initial_indent="    ", subsequent_indent="    "),
        *([f"    Must be {key.must_be}."] if key.must_be else []),
    ]
