"""``examine``: looks at a data set before any training, for its owner alone, and advises what to run."""

import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efsgd_jax.config import load_config
from efsgd_jax.data import load_dataset
from efsgd_jax.data.facts import facts_of
from efsgd_jax.data.guess_source import guess_source
from efsgd_jax.errors import UserError
from efsgd_jax.runs.likely import CURVES, likely_loss, likely_variety, noise_beyond, records_for_good_use, use_left

EPSILONS = (1.0, 3.0, 10.0)
# Larger images are examined, and trained on, at this size, unless another one is asked for.
DEFAULT_SIZE = 32
# Training records for each class below which little but noise remains, and above which the measured curves apply.
FEW = 200
# Seconds of configs/mixture_fmnist.py for 60,000 images of 784 values on a machine with this matrix speed; the page
# docs/results/images.md has the measurement.
SECONDS, RECORDS, VALUES, SPEED = 38.0, 60_000, 784, 150e9


def examine(path: str | Path, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reads images as ``fit`` would, and returns what its owner should know before training; writes nothing.

    Args:
      path: the file or directory.
      options: arguments of ``load_dataset``, and ``name`` for a source other than the one that the path looks like.

    Returns:
      JSON values: ``source``, ``own_size`` (as text, before resizing; "any size" if one was asked for), ``facts`` (see
      ``facts_of``), ``warnings`` of the reader, ``config`` (the recommended one, the command, and why), ``likely`` (for
      each epsilon, points of accuracy that noise costs, whether that was measured, and a sentence), ``hopeless``
      (whether there are too few records for any of them), ``curve`` (the data of that measurement), ``minutes`` and
      ``public``. All of it is private, except ``public``, which lists what a run will publish.

    Raises:
      UserError: the images cannot be read.

    Examples:
      >>> from efsgd_jax import sample
      >>> _ = sample("runs/digits", 200, out="drawn", formats=["png"])
      >>> found = examine("drawn/png", {"channels": 1})
      >>> found["source"], found["config"]["name"]
      ('folder', 'folder')
    """
    asked = {k: v for k, v in dict(options or {}).items() if v}
    name = asked.pop("name", None) or guess_source(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data, asked, own_size = _load(name, path, asked)
    facts = facts_of(data)
    records = facts.get("groups", facts["training"])
    unit = "persons" if "groups" in facts else "images"
    config = _config(name, path, asked, facts)
    curve = config["name"] if config["name"] in CURVES else "clothes"
    likely = {f"{epsilon:g}": _likely(epsilon, records, len(facts["classes"]), unit, curve) for epsilon in EPSILONS}
    size, channels = facts["shape"][0], facts["shape"][2]
    return {
        "source": name,
        "own_size": own_size,
        "facts": facts,
        "warnings": [str(w.message) for w in caught],
        "config": config,
        "likely": likely,
        "hopeless": records / len(facts["classes"]) < FEW,
        "curve": CURVES[curve].of,
        "minutes": round(_seconds(facts["training"], facts["shape"]) / 60, 1),
        "public": {
            f"number of training {unit}": records,
            "classes": list(facts["classes"]),
            "size": f"{size}x{size}, {channels} channel{'s' if channels > 1 else ''}",
        },
    }


def _load(name: str, path: str | Path, options: dict[str, Any]) -> tuple[Any, dict[str, Any], str]:
    """Loads the data; images of different or large sizes are brought to ``DEFAULT_SIZE``. Also their own size."""
    own = "different sizes"
    if "image_size" in options:
        return load_dataset(name, path=path, **options), options, "any size"
    try:
        data = load_dataset(name, path=path, **options)
        own = f"{data.spec.image_size}x{data.spec.image_size}"
        if data.spec.image_size <= DEFAULT_SIZE or name in ("npz", "idx", "celeba"):
            return data, options, own
    except UserError as error:
        if "--config.data.image_size" not in str(error):
            raise
    sized = {**options, "image_size": DEFAULT_SIZE}
    return load_dataset(name, path=path, **sized), sized, own


def _config(name: str, path: str | Path, options: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """The recommended config, its command and the reason."""
    keys = [f"--config.data.{k}={v}" for k, v in options.items()]
    if name != "folder":
        keys.insert(0, f"--config.data.name={name}")
    if "image_size" not in options:
        keys.append(f"--config.data.image_size={facts['shape'][0]}")
    grey = facts["shape"][2] == 1 or facts["without_colour"]
    if grey and "channels" not in options:
        keys.append("--config.data.channels=1")
    chosen, why = "folder", "a private mixture of low frequencies, in which small details are lost"
    if not grey:
        why += "; with public pictures of any kind, preset:folder_public keeps more of them (docs/examples.md)"
    if facts["object_on_dark"] and not grey:
        chosen = "folder_cells"
        why = "the pictures look like cells or other round objects on black; if they are not, take preset:folder"
    elif facts["object_on_dark"]:
        keys += ["--config.method.pose_weight=8"]
        why = "the pictures are bright objects on a dark background: they are brought to one position and size"
    side = facts["shape"][0]
    if side < load_config(f"preset:{chosen}").method.low_pass:
        keys.append(f"--config.method.low_pass={side}")
    few = min(v["training"] for v in facts["classes"].values()) < FEW or "groups" in facts
    if few:
        keys.append("--config.method.components=1")
        keys += ["--config.method.directions=30"] if "groups" in facts else []
        why += "; one Gaussian for each class, since there are few records"
    command = " ".join([f"efsgd train --config=preset:{chosen}", f"--config.data.path={path}", *keys])
    command += " --config.privacy.epsilon=EPSILON --workdir=RUN"
    return {"name": chosen, "command": command, "why": why}


def _likely(epsilon: float, records: int, classes: int, unit: str, curve: str) -> dict[str, Any]:
    loss, measured = likely_loss(epsilon, records, classes, curve)
    whole, use = use_left(loss, curve)
    images = f"images of {use} use and {likely_variety(epsilon, records, classes, curve)} variety"
    points = f"{loss:.0f} of the {whole:.0f} points by which a classifier's accuracy is above guessing"
    if records / classes < FEW:
        sentence = f"fewer than {FEW} {unit} a class: expect mostly noise"
    elif measured:
        sentence = f"expect {images}: noise is likely to cost about {points}"
    else:
        ratio = noise_beyond(epsilon, records, classes, curve)
        sentence = f"expect {images}: noise is likely to cost less than about {points}"
        if ratio > 1:
            sentence = (
                f"expect {images}, or worse: noise is likely to cost more than about {points}; so much "
                f"was lost at the most noise that was measured, and here there is {ratio:.2g} times as much"
            )
    needed = records_for_good_use(epsilon, classes, curve)
    if use != "good" and needed:
        sentence += f"; good use would need about {needed:,} {unit} instead of {records:,}"
    return {"accuracy_lost": round(loss, 1), "measured": measured, "says": sentence}


def _seconds(records: int, shape: list[int]) -> float:
    """A rough estimate of the running time on this machine when idle, from the speed of its matrix products.

    The fastest of several products counts: the others had to share the machine.
    """
    a = np.ones((1024, 1024), np.float32)
    a @ a
    fastest = math.inf
    for _ in range(12):
        start = time.perf_counter()
        a @ a
        fastest = min(fastest, time.perf_counter() - start)
    speed = 2 * 1024**3 / fastest
    work = (records / RECORDS) * (np.prod(shape) / VALUES)
    return 10 + SECONDS * float(work) * SPEED / speed
