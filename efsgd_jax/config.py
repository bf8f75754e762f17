"""The configuration: every key, its default and what it means; recipes in ``configs/`` change some of them."""

import dataclasses
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from efsgd_jax.errors import UserError
from efsgd_jax.methods.efsgd_gan import Hyperparameters


def default_config() -> ConfigDict:
    """The embedded default: scikit-learn's digits at epsilon 10. ``None`` marks "chosen for you"."""
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "name": "digits",  # digits, mnist, fashion_mnist, npz, idx, folder, celeba or tfds:NAME
            "path": "",  # file or directory; not needed for digits, mnist and fashion_mnist
            "image_size": 0,  # crop and resize to this side; 0 keeps the source's own
            "channels": 0,  # 1 or 3; 0 keeps the source's own
            "attribute": "",  # the label of celeba and tfds
            "test_fraction": 0.2,  # held out where the source has no test part
        }
    )
    config.privacy = ConfigDict(
        {
            "epsilon": 10.0,  # never exceeded; inf trains without noise and without any guarantee
            "delta": 1e-5,
            "noise_multiplier": 0.0,  # 0 solves for the smallest that lasts for train.steps
            # Clip norm of each network's part of an example's gradient. Their ratios matter, their scale hardly:
            # Adam follows, and the noise is in units of the joint sensitivity.
            "l2_norm_clip": {"discriminator": 0.7, "encoder": 0.5, "generator": 1.0},
            "feedback": "none",  # none, or hidden (expensive: its assumption-free epsilon is what counts)
            "feedback_l2_norm_clip": 0.0,  # of hidden, on the scale of the sum
        }
    )
    config.train = ConfigDict(
        {
            "steps": 600,
            "expected_batch_size": 128,  # Poisson sampling with q = expected_batch_size / N
            "log_every": 20,
            "grid_every": 200,  # sample grid and checkpoint
            "seed": -1,  # -1: keys from the system's entropy. Anything else is for debugging: no guarantee
        }
    )
    config.method = ConfigDict(dataclasses.asdict(Hyperparameters()))
    return config


def load_config(path: str | Path) -> ConfigDict:
    """Runs ``get_config()`` of a Python file.

    Raises:
      UserError: no such file, it does not run, or it has no ``get_config``.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"config file {path} does not exist; the recipes are in configs/, such as configs/digits.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:
        raise UserError(f"config file {path} fails: {type(error).__name__}: {_line(error)}") from error
    finally:
        sys.dont_write_bytecode = bytecode
    if not isinstance(config, ConfigDict):
        raise UserError(f"config file {path}: get_config() returns {type(config).__name__}, expected a ConfigDict")
    return config


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
    _check_keys(config, default_config(), "")
    p, t, m = config.privacy, config.train, config.method
    rules = [
        ("privacy.epsilon", p.epsilon, p.epsilon > 0, "above 0, or inf for no privacy"),
        ("privacy.delta", p.delta, 0 < p.delta < 1, "between 0 and 1, such as 1e-5"),
        ("privacy.noise_multiplier", p.noise_multiplier, 0 <= p.noise_multiplier < math.inf, "at least 0"),
        ("privacy.feedback", p.feedback, p.feedback in ("none", "hidden"), "none or hidden"),
        (
            "privacy.feedback_l2_norm_clip",
            p.feedback_l2_norm_clip,
            (p.feedback_l2_norm_clip > 0) if p.feedback == "hidden" else (p.feedback_l2_norm_clip == 0),
            "above 0 with feedback=hidden, else 0",
        ),
        ("train.steps", t.steps, t.steps >= 1, "at least 1"),
        ("train.expected_batch_size", t.expected_batch_size, t.expected_batch_size >= 1, "at least 1"),
        ("train.log_every", t.log_every, t.log_every >= 1, "at least 1"),
        ("train.grid_every", t.grid_every, t.grid_every >= 1, "at least 1"),
        ("train.seed", t.seed, -1 <= t.seed < 2**32, "-1 or a seed from 0 to 2^32 - 1"),
        ("method.ema_decay", m.ema_decay, 0 <= m.ema_decay < 1, "at least 0 and below 1"),
        ("method.adam_b1", m.adam_b1, 0 <= m.adam_b1 < 1, "at least 0 and below 1"),
        (
            "method.microbatch_size",
            m.microbatch_size,
            m.microbatch_size is None or m.microbatch_size >= 1,
            "at least 1",
        ),
    ]
    rules += [(f"privacy.l2_norm_clip.{k}", c, 0 < c < math.inf, "above 0") for k, c in p.l2_norm_clip.items()]
    counts = ["latent", "generator_width", "discriminator_width", "encoder_width", "max_width", "features"]
    counts += ["private_steps_per_generator_step", "generated_batch_size"]
    rules += [(f"method.{k}", m[k], m[k] >= 1, "at least 1") for k in counts]
    weights = [k for k in m if k.endswith(("_weight", "learning_rate"))]
    rules += [(f"method.{k}", m[k], 0 <= m[k] < math.inf, "at least 0") for k in weights]
    for key, value, valid, wanted in rules:
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
