"""Options that say how private images are read, for commands that take images and no config."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from efsgd_jax.cli.parser import PREFIX
from efsgd_jax.config_groups import DataKeys
from efsgd_jax.errors import UserError


def data_options(overrides: Sequence[str], command: str) -> dict[str, Any]:
    """Arguments of ``load_dataset``, and ``name``, from overrides ``data.KEY=VALUE``.

    Args:
      overrides: as ``split_overrides`` returns them.
      command: the name of the command, for messages.

    Raises:
      UserError: a key does not say how images are read, or a value is not of its type.
    """
    known = {field.name: field.type for field in dataclasses.fields(DataKeys)}
    found: dict[str, Any] = {}
    for assignment in overrides:
        key, _, value = assignment.partition("=")
        name = key.removeprefix("data.")
        if key == name or name not in known or name in ("path", "images_per_group"):
            raise UserError(
                f"{PREFIX}{key} does not say how images are read; `{command}` takes the keys of config.data"
            )
        kind = {"int": int, "float": float}.get(str(getattr(known[name], "__name__", known[name])), str)
        try:
            found[name] = kind(value)
        except ValueError as error:
            raise UserError(f"{PREFIX}{key} is {value!r}; it must be a number") from error
    return found
