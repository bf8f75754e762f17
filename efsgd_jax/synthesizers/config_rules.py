"""Rules for the values of the config keys that every method has, and helpers for the methods' own rules."""

import math
from collections.abc import Callable, Iterable
from typing import Any, get_args

from ml_collections import ConfigDict

from efsgd_jax.data.declarations import parse_classes, parse_region, parse_value_range
from efsgd_jax.errors import UserError
from efsgd_jax.privacy.calibration import MAX_NOISE_MULTIPLIER
from efsgd_jax.privacy.dp_sgd import LOCAL_OVERFLOW, DpSgdMechanism
from efsgd_jax.privacy.feedback_options import FeedbackMode
from efsgd_jax.privacy.sampling import sample_capacity

# Largest value of a key that sets the size of an array. With larger values, indices overflow before memory runs out.
MAX_SIZE = 2**20
# Largest number of images of a group.
MAX_GROUP = 4096

# The key, its value, whether the value is valid, and a description of the valid values.
Rule = tuple[str, Any, bool, str]


def at_least(config: ConfigDict, group: str, keys: Iterable[str], least: float) -> list[Rule]:
    """Rules that the value of each key is finite and at least ``least``."""
    values = config[group]
    return [(f"{group}.{k}", values[k], least <= values[k] < math.inf, f"at least {least:g}") for k in keys]


def fractions(config: ConfigDict, group: str, keys: Iterable[str]) -> list[Rule]:
    """Rules that the value of each key is in [0, 1)."""
    values = config[group]
    return [(f"{group}.{k}", values[k], 0 <= values[k] < 1, "at least 0 and below 1") for k in keys]


def joint_clip(config: ConfigDict) -> float:
    """The joint sensitivity sqrt(sum of squares) of ``privacy.l2_norm_clip``, a single norm or one for each network."""
    clip = config.privacy.get("l2_norm_clip", 0.0)  # gaussian_mixture has clip norms of its own
    return math.hypot(*clip.values()) if isinstance(clip, ConfigDict) else float(clip)


def _sizes(config: ConfigDict) -> list[tuple[str, int]]:
    """Name and value of the keys that set array sizes: all integers of ``config.method``, and the batch sizes."""
    batches = [(f"train.{k}", config.train[k]) for k in ("expected_batch_size", "images_per_step") if k in config.train]
    return batches + [(f"method.{k}", v) for k, v in config.method.items() if type(v) is int]


def _parses(parse: Callable[[str], Any], text: Any) -> bool:
    try:
        parse(text)
    except UserError:
        return False
    return True


def data_rules(config: ConfigDict) -> list[Rule]:
    """Rules for ``data.classes`` and ``data.value_range``. The other keys are checked when the data is loaded."""
    d = config.data
    return [
        (
            "data.classes",
            repr(d.classes),
            _parses(parse_classes, d.classes),
            "a number of at least 1 such as 10, or different names with commas between them such as healthy,affected",
        ),
        (
            "data.value_range",
            repr(d.value_range),
            _parses(parse_value_range, d.value_range),
            "two numbers, the smaller one first, such as 0..255 or -1..1",
        ),
    ]


def public_rules(config: ConfigDict) -> list[Rule]:
    """Rules that no public data is given to a method that does not use it."""
    p, used = config.public, bool(config.method.get("autoencoder_width"))
    unused = "empty without method.autoencoder_width"
    return [(f"public.{k}", repr(p[k]), used or not p[k], unused) for k in ("path", "weights")]


def common_rules(config: ConfigDict) -> list[Rule]:
    """Rules for the keys of ``config.data``, ``config.privacy`` and ``config.train`` that all methods share."""
    p, t = config.privacy, config.train
    # feedback=private also clips to feedback_l2_norm_clip, which must be larger than the joint sensitivity.
    smallest = joint_clip(config) if p.feedback == "private" else 0.0
    modes = get_args(FeedbackMode)
    return [
        *data_rules(config),
        *public_rules(config),
        ("privacy.epsilon", p.epsilon, p.epsilon > 0, "above 0, or inf for no privacy"),
        ("privacy.delta", p.delta, 0 < p.delta < 1, "between 0 and 1, such as 1e-5"),
        (
            "privacy.noise_multiplier",
            p.noise_multiplier,
            0 <= p.noise_multiplier <= MAX_NOISE_MULTIPLIER,
            f"from 0, for a calibrated one, to {MAX_NOISE_MULTIPLIER:g}",
        ),
        ("privacy.feedback", p.feedback, p.feedback in modes, f"one of {', '.join(modes)}"),
        (
            "privacy.feedback_l2_norm_clip",
            p.feedback_l2_norm_clip,
            (p.feedback_l2_norm_clip == 0) if p.feedback == "none" else (p.feedback_l2_norm_clip > smallest),
            f"above {smallest:g} with feedback={p.feedback}" if p.feedback != "none" else "0 with feedback=none",
        ),
        (
            "privacy.feedback_decay",
            p.feedback_decay,
            p.feedback_decay == -1 or (p.feedback in ("local", "private") and 0 <= p.feedback_decay < 1),
            "-1, or at least 0 and below 1 with feedback=local or private",
        ),
        (
            "privacy.feedback_share",
            p.feedback_share,
            p.feedback_share == 0 or (p.feedback == "private" and 0 < p.feedback_share < 1),
            "0, or between 0 and 1 with feedback=private",
        ),
        (
            "privacy.region",
            repr(p.region),
            _parses(parse_region, p.region),
            "top,left,height,width in pixels, the last two above 0, such as 9,9,14,14, or empty",
        ),
        (
            "privacy.feedback",
            p.feedback,
            not p.region or p.feedback == "none",
            "none with privacy.region",
        ),
        *at_least(config, "data", ["images_per_group"], 1),
        (
            "data.images_per_group",
            config.data.images_per_group,
            config.data.images_per_group <= MAX_GROUP,
            f"at most {MAX_GROUP}",
        ),
        *at_least(config, "train", ["log_every", "grid_every"], 1),
        *at_least(config, "train", ["divide_above"], 0),
        *((k, v, v <= MAX_SIZE, f"at most {MAX_SIZE}") for k, v in _sizes(config)),
        ("train.seed", t.seed, -1 <= t.seed < 2**32, "-1 or a seed from 0 to 2^32 - 1"),
    ]


def feedback_options(config: ConfigDict) -> dict[str, Any]:
    """The error-feedback keys as arguments of a mechanism; 0, or -1 for the decay, becomes None (the default)."""
    p = config.privacy
    return {
        "feedback": p.feedback,
        "feedback_l2_norm_clip": p.feedback_l2_norm_clip or None,
        "feedback_decay": None if p.feedback_decay < 0 else p.feedback_decay,
        "feedback_share": p.feedback_share or None,
    }


def poisson_mechanism(config: ConfigDict, dataset_size: int, l2_norm_clip: Any) -> DpSgdMechanism:
    """DP-SGD on Poisson-sampled batches, from the keys of ``config.privacy`` and ``config.train.expected_batch_size``.

    Args:
      config: a configuration with ``method.microbatch_size``.
      dataset_size: number N of training images.
      l2_norm_clip: the clip norm, or one for each top-level key of the parameters.

    Raises:
      UserError: the expected batch size is larger than the number of training images.
    """
    p, expected = config.privacy, config.train.expected_batch_size
    if expected > dataset_size:
        raise UserError(
            f"config.train.expected_batch_size is {expected}, but there are only N = {dataset_size} training images "
            "(groups, with config.data.groups); lower it"
        )
    q = expected / dataset_size
    capacity = sample_capacity(
        dataset_size,
        q,
        multiple_of=config.method.microbatch_size or 1,
        overflow_probability=LOCAL_OVERFLOW if p.feedback == "local" else None,
    )
    return DpSgdMechanism(
        dataset_size=dataset_size,
        sampling_probability=q,
        capacity=capacity,
        noise_multiplier=p.noise_multiplier,
        l2_norm_clip=l2_norm_clip,
        **feedback_options(config),
    )


def without_noise(config: ConfigDict) -> bool:
    """Whether the configuration trains without noise: infinite epsilon and no noise multiplier."""
    return config.privacy.epsilon == math.inf and config.privacy.noise_multiplier == 0
