"""The configuration: defaults from the dataclasses of its groups, changes by files in ``configs/``, and validation."""

import dataclasses
import difflib
import importlib.util
import inspect
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.config_groups import GROUPS
from efsgd_jax.errors import UserError
from efsgd_jax.synthesizers import common_rules, method_named

# Prefix of a path that names a config of the package, as in ``--config=preset:mnist``.
PACKAGED = "preset:"


def default_config(method: str = "efsgd_gan") -> ConfigDict:
    """The default configuration of a method; for ``efsgd_gan``, scikit-learn's digits at epsilon 10.

    Raises:
      UserError: there is no such method.

    Examples:
      >>> default_config("gaussian_mixture").method.components
      5
    """
    config = ConfigDict({name: dataclasses.asdict(group) for name, group in GROUPS.items()})
    config.method = ConfigDict({"name": method})
    for group, values in method_named(method).defaults().items():
        config[group].update(dataclasses.asdict(values))
    return config


def json_values(config: ConfigDict) -> dict[str, Any]:
    """The configuration as values for JSON. Infinity, which JSON lacks, becomes the string "inf"."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        return "inf" if isinstance(value, float) and math.isinf(value) else value

    return json.loads(json.dumps(convert(config.to_dict())))


def config_from(values: dict[str, Any]) -> ConfigDict:
    """The inverse of ``json_values``: the configuration from the values in a run's JSON files."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        return math.inf if value == "inf" else value

    return ConfigDict(convert(values))


def with_method(config: ConfigDict, method: str) -> ConfigDict:
    """The default configuration of another method, with the data, epsilon, delta and seed of ``config``.

    Raises:
      UserError: there is no such method.
    """
    other = default_config(method)
    other.data.update(config.data)
    other.public.update(config.public)
    other.privacy.update(epsilon=config.privacy.epsilon, delta=config.privacy.delta)
    other.train.seed = config.train.seed
    return other


def load_config(path: str | Path, *, preset: str | None = None, epsilon: float | None = None) -> ConfigDict:
    """Loads a configuration: runs ``get_config()`` of a Python file.

    Args:
      path: the file, or ``preset:NAME`` for one of the configs that come with the package, such as ``preset:mnist``.
      preset: argument ``preset`` of ``get_config``, for configs that have this parameter; they may list the accepted
        values in ``PRESETS``. None for the config's default.
      epsilon: value of ``privacy.epsilon``; None for the config's own. It is also passed to ``get_config`` if that
        function has a parameter ``epsilon``: configs have one if their other settings depend on epsilon.

    Raises:
      UserError: the file does not exist, it fails, it has no ``get_config``, or it does not have that preset.

    Examples:
      >>> load_config("preset:mnist", epsilon=1.0).privacy.epsilon
      1.0
    """
    path = _file(path)
    try:
        module = _run(path)
        accepted = inspect.signature(module.get_config).parameters
        if preset is not None and "preset" not in accepted:
            raise UserError(f"config file {path} has no presets; leave --config.preset={preset} out")
        presets = getattr(module, "PRESETS", {preset: None})
        if preset is not None and preset not in presets:
            raise UserError(f"config file {path} has no preset {preset!r}; use one of {', '.join(presets)}")
        wanted = {"preset": preset, "epsilon": epsilon}
        config = module.get_config(**{k: v for k, v in wanted.items() if v is not None and k in accepted})
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"config file {path} fails: {type(error).__name__}: {_line(error)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config file {path}: get_config() returns {type(config).__name__}, expected a ConfigDict")
    if epsilon is not None:
        override(config, "privacy.epsilon", str(epsilon))
    return config


def presets_of(path: str | Path) -> tuple[str, ...]:
    """The names of a configuration's presets, values of ``--config.preset``; empty if it has none.

    Args:
      path: as for ``load_config``, of a file that it loads.

    Examples:
      >>> presets_of("preset:mixture_mnist"), presets_of("preset:mnist")
      (('quick', 'long'), ())
    """
    return tuple(getattr(_run(_file(path)), "PRESETS", ()))


def _file(path: str | Path) -> Path:
    """The Python file that a path or ``preset:NAME`` means."""
    path = _packaged(str(path).removeprefix(PACKAGED)) if str(path).startswith(PACKAGED) else Path(path)
    if not path.is_file():
        raise UserError(
            f"config file {path} does not exist; the configs are in configs/, such as configs/digits.py, or "
            f"--config={PACKAGED}NAME with one of {', '.join(packaged_configs())}"
        )
    return path


def _run(path: Path) -> ModuleType:
    """Runs the file, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Running the file must not leave a folder __pycache__ beside it.
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = bytecode
    return module


def packaged_configs() -> list[str]:
    """The names of the configs that come with the package."""
    return sorted(p.stem for p in _config_directory().glob("*.py") if not p.stem.startswith("_"))


def _config_directory() -> Path:
    """The directory of the configs: in a wheel it is a part of the package, in a checkout it is beside it."""
    here = Path(__file__).parent
    return here / "presets" if (here / "presets").is_dir() else here.parent / "configs"


def _packaged(name: str) -> Path:
    known = packaged_configs()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"no config {name!r} comes with the package; {hint}there are {', '.join(known)}")
    return _config_directory() / f"{name}.py"


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets ``config.key`` (dotted) from text, converted to the type of the key's current value.

    Raises:
      UserError: there is no such key, or the text is not of that type.
    """
    *parents, last = key.split(".")
    node: Any = config
    for parent in parents:
        node = node.get(parent) if isinstance(node, ConfigDict) else None
    if not isinstance(node, ConfigDict) or last not in node:
        raise _unknown(key, config, node if isinstance(node, ConfigDict) else config)
    node[last] = _parse(key, text, node[last])


def _unknown(key: str, config: ConfigDict, here: ConfigDict, prefix: str = "") -> UserError:
    """The error for an unknown key: it names the most similar key and all keys of the group.

    Args:
      key: dotted name of the unknown key.
      config: the configuration, or group, in which similar keys are searched.
      here: the group in which the key was expected.
      prefix: dotted name of ``config`` with a dot at the end; "" for the whole configuration.
    """
    close = difflib.get_close_matches(key, [prefix + k for k in _dotted(config)], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UserError(f"unknown config key {key!r}; {hint}known here: {', '.join(sorted(here))}")


def _dotted(config: ConfigDict) -> list[str]:
    """All keys of a configuration, with dotted names for those in groups."""
    found = []
    for key, value in config.items():
        found += [f"{key}.{inner}" for inner in _dotted(value)] if isinstance(value, ConfigDict) else [key]
    return found


def _parse(key: str, text: str, current: Any) -> Any:
    """Converts the text for a key to the type of the key's ``current`` value."""
    lowered = text.strip().lower()
    if isinstance(current, ConfigDict):
        raise UserError(f"config key {key!r} is a group; set one of {', '.join(f'{key}.{k}' for k in sorted(current))}")
    if isinstance(current, str):
        return text
    if isinstance(current, bool):
        if lowered in ("true", "false", "1", "0"):
            return lowered in ("true", "1")
        raise UserError(f"config key {key!r} is {text!r}; use true or false")
    if lowered == "none" and key == "method.microbatch_size":
        return None
    try:
        number = float(text)
    except ValueError as error:
        raise UserError(f"config key {key!r} is {text!r}; use a number") from error
    if isinstance(current, int) or current is None:
        if not number.is_integer():
            raise UserError(f"config key {key!r} is {text!r}; use a whole number")
        return int(number)
    return number


def validate(config: ConfigDict) -> None:
    """Checks everything about a configuration that can be checked before the data is read.

    Raises:
      UserError: an unknown or missing key, or a value outside its range; the message names the key and the value.
    """
    name = config.method.get("name") if isinstance(config.get("method"), ConfigDict) else None
    if name is None:
        raise UserError("config key 'method.name' is missing; start from efsgd_jax.default_config()")
    method = method_named(name)
    _check_keys(config, default_config(name), "")
    for key, value, valid, wanted in [*common_rules(config), *method.rules(config)]:
        if not valid:
            choices = wanted.removeprefix("one of ").split(", ") if wanted.startswith("one of ") else []
            close = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"config.{key} is {value}; it must be {wanted}{hint}")


def _check_keys(config: ConfigDict, known: ConfigDict, prefix: str) -> None:
    """Checks that ``config``, the group named ``prefix``, has the same keys as ``known``, the default configuration."""
    for key, value in config.items():
        if key not in known:
            raise _unknown(prefix + key, known, known, prefix)
        if isinstance(known[key], ConfigDict):
            if not isinstance(value, ConfigDict):
                raise UserError(f"config key {prefix + key!r} is {value!r}; it is a group of keys")
            _check_keys(value, known[key], f"{prefix}{key}.")
    missing = sorted(set(known) - set(config))
    if missing:
        raise UserError(f"config key {prefix + missing[0]!r} is missing; start from efsgd_jax.default_config()")


def _line(error: Exception) -> str:
    """The message of an exception in one line, truncated to 300 characters."""
    return " ".join(str(error).split())[:300]
