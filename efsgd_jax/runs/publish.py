"""Writes the release of a trained run: the generator, a grid of its images, the configuration, the privacy report."""

import hashlib
from typing import Any

import flax.serialization
import jax
import numpy as np

from efsgd_jax.config import json_values
from efsgd_jax.files import atomic, write_json, write_text
from efsgd_jax.images import save_grid
from efsgd_jax.runs.privacy_markdown import to_markdown
from efsgd_jax.runs.release import fingerprints, public_config
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.training.setup import Setup

PyTree = Any


def publish(setup: Setup, report: dict[str, Any], directory: Workdir, params: PyTree, grid: np.ndarray) -> None:
    """Writes the files of ``release/``. The generator is written last: a run that has one is finished.

    Args:
      setup: the run.
      report: its privacy report.
      directory: the run's directory; the calling process holds its lock.
      params: what the last phase released.
      grid: a grid of images that were generated from ``params``.
    """
    write_json(directory.privacy_json, report)
    write_text(directory.privacy_md, to_markdown(report))
    public = report["public"]
    spec = {"image_size": public["image_size"], "channels": public["channels"], "class_names": public["classes"]}
    write_json(directory.config, {"config": public_config(json_values(setup.config)), "spec": spec})
    save_grid(directory.samples, grid)
    weights = flax.serialization.to_bytes(jax.device_get(params))
    hashes = {**fingerprints(directory.release), directory.generator.name: hashlib.sha256(weights).hexdigest()}
    write_json(directory.released, hashes, private=True)
    directory.restrict_permissions()
    with atomic(directory.generator) as temporary:
        temporary.write_bytes(weights)
