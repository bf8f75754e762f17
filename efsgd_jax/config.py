"""The configuration: every key, its default and what it means; recipes in ``configs/`` change some of them."""

import difflib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.errors import UserError
from efsgd_jax.synthesizers import common_rules, method_named

PACKAGED = "preset:"


def default_config(method: str = "efsgd_gan") -> ConfigDict:
    """The embedded default of a method: for ``efsgd_gan``, scikit-learn's digits at epsilon 10.

    Raises:
      UserError: no such method.
    """
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "name": "digits",  # digits, mnist, fashion_mnist, npz, idx, folder, celeba or tfds:NAME
            "path": "",  # file or directory; not needed for digits, mnist and fashion_mnist
            "image_size": 0,  # crop and resize to this side; 0 keeps the source's own
            "channels": 0,  # 1 (grey) or 3; 0: 3 for image files (folder, celeba), what arrays have for the others
            "attribute": "",  # the label of celeba and tfds
            # All classes, also one without an image: their number, or their names with commas between them. "" for
            # those that the source names: its folders, an array class_names.
            "classes": "",
            # Whose ends become black and white, such as 0..16 or -1..1. "" for 0..255 of integers and 0..1 of floats.
            "value_range": "",
            "test_fraction": 0.2,  # each image's chance to be held out where the source has no test part
        }
    )
    config.privacy = ConfigDict(
        {
            "epsilon": 10.0,  # never exceeded; inf trains without noise and without any guarantee
            "delta": 1e-5,
            "noise_multiplier": 0.0,  # 0 solves for the smallest that lasts for train.steps
            # none; local (a residual per example, free); private (a noised residual, free); hidden (as published, and
            # expensive: its assumption-free epsilon is what counts)
            "feedback": "none",
            "feedback_l2_norm_clip": 0.0,  # hidden: of the residual, on the scale of the sum; local: bound of one
            # unit's residual; private: the outer clip norm. 0 for none
            "feedback_decay": -1.0,  # local: of a residual when it is written; private: of the filter. -1: the mode's
            "feedback_share": 0.0,  # private: the residual channel's share of the budget. 0: the mode's
        }
    )
    config.train = ConfigDict(
        {
            "steps": 600,
            "log_every": 20,
            "grid_every": 200,  # sample grid and checkpoint
            "seed": -1,  # -1: keys from the system's entropy. Anything else is for debugging: no guarantee
        }
    )
    config.method = ConfigDict({"name": method})
    for group, values in method_named(method).defaults().items():
        config[group].update(values)
    return config


def load_config(path: str | Path, *, preset: str | None = None, epsilon: float | None = None) -> ConfigDict:
    """Runs ``get_config()`` of a Python file.

    Args:
      path: the file, or ``preset:NAME`` for one of the recipes that come with the package, such as ``preset:mnist``.
      preset: for recipes whose ``get_config`` has a parameter of this name, and that may list them in ``PRESETS``; None
        for the recipe's own.
      epsilon: the same: some settings suit only a large epsilon. Other recipes have one for all, and it is only set.

    Raises:
      UserError: no such file, it does not run, it has no ``get_config``, or not that preset.
    """
    path = _packaged(str(path).removeprefix(PACKAGED)) if str(path).startswith(PACKAGED) else Path(path)
    if not path.is_file():
        raise UserError(
            f"config file {path} does not exist; the recipes are in configs/, such as configs/digits.py, or "
            f"--config={PACKAGED}NAME with one of {', '.join(packaged_recipes())}"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
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
    finally:
        sys.dont_write_bytecode = bytecode
    if not isinstance(config, ConfigDict):
        raise UserError(f"config file {path}: get_config() returns {type(config).__name__}, expected a ConfigDict")
    if epsilon is not None:
        override(config, "privacy.epsilon", str(epsilon))
    return config


def packaged_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(p.stem for p in _recipes().glob("*.py") if not p.stem.startswith("_"))


def _recipes() -> Path:
    """In a wheel they are a part of the package, in a checkout they lie beside it."""
    here = Path(__file__).parent
    return here / "presets" if (here / "presets").is_dir() else here.parent / "configs"


def _packaged(name: str) -> Path:
    known = packaged_recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"no recipe {name!r} comes with the package; {hint}there are {', '.join(known)}")
    return _recipes() / f"{name}.py"


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets ``config.key`` (dotted) from text, as the type that the default has.

    Raises:
      UserError: no such key, or the text is not of that type.
    """
    *parents, last = key.split(".")
    node: Any = config
    for parent in parents:
        node = node.get(parent) if isinstance(node, ConfigDict) else None
    if not isinstance(node, ConfigDict) or last not in node:
        known = node if isinstance(node, ConfigDict) else config
        raise UserError(f"unknown config key {key!r}; known here: {', '.join(sorted(known))}")
    node[last] = _parse(key, text, node[last])


def _parse(key: str, text: str, current: Any) -> Any:
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
    """Checks what can be checked before the data is read.

    Raises:
      UserError: an unknown key, or a value outside its range; the message names both.
    """
    name = config.method.get("name") if isinstance(config.get("method"), ConfigDict) else None
    if name is None:
        raise UserError("config key 'method.name' is missing; start from efsgd_jax.default_config()")
    method = method_named(name)
    _check_keys(config, default_config(name), "")
    for key, value, valid, wanted in [*common_rules(config), *method.rules(config)]:
        if not valid:
            raise UserError(f"config.{key} is {value}; it must be {wanted}")


def _check_keys(config: ConfigDict, known: ConfigDict, prefix: str) -> None:
    for key, value in config.items():
        if key not in known:
            raise UserError(f"unknown config key {prefix + key!r}; known here: {', '.join(sorted(known))}")
        if isinstance(known[key], ConfigDict):
            if not isinstance(value, ConfigDict):
                raise UserError(f"config key {prefix + key!r} is {value!r}; it is a group of keys")
            _check_keys(value, known[key], f"{prefix}{key}.")
    missing = sorted(set(known) - set(config))
    if missing:
        raise UserError(f"config key {prefix + missing[0]!r} is missing; start from efsgd_jax.default_config()")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
