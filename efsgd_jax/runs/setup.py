"""From a configuration to its data, mechanism, ledger and method; every check comes before anything is written."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from efsgd_jax.config import validate
from efsgd_jax.data import Dataset, load_dataset
from efsgd_jax.errors import UserError
from efsgd_jax.methods.efsgd_gan import Hyperparameters, efsgd_gan
from efsgd_jax.methods.synthesizer import Synthesizer
from efsgd_jax.models.sizes import base_and_stages
from efsgd_jax.privacy.calibration import calibrate_mechanism
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.privacy.mechanisms import LOCAL_OVERFLOW, Mechanism
from efsgd_jax.privacy.sampling import sample_capacity
from efsgd_jax.runs.files import read_json
from efsgd_jax.runs.workdir import Workdir


class Setup(NamedTuple):
    """A run that is ready to start."""

    dataset: Dataset
    ledger: Ledger
    synthesizer: Synthesizer


def dataset_of(config: ConfigDict) -> Dataset:
    """The data set that ``config.data`` names."""
    d = config.data
    return load_dataset(
        d.name,
        path=d.path or None,
        image_size=d.image_size or None,
        channels=d.channels or None,
        attribute=d.attribute or None,
        test_fraction=d.test_fraction,
    )


def finished_run(workdir: str | Path) -> tuple[Workdir, Dataset]:
    """A finished run's directory and the data that it was trained on.

    Raises:
      UserError: the run is not finished, its ``private/`` is missing, or its data is gone or has changed.
    """
    directory = Workdir(workdir)
    if not directory.finished or not directory.run.is_file():
        raise UserError(f"{directory.root} holds no finished run with its private/ part; train it first")
    run = read_json(directory.run)
    data = dataset_of(ConfigDict(run["config"]))
    if data.fingerprint() != run["data_sha256"]:
        raise UserError(f"{data.source} is no longer the data that {directory.root} was trained on; restore it")
    return directory, data


def hyperparameters_of(config: ConfigDict) -> Hyperparameters:
    return Hyperparameters(**config.method.to_dict())


def prepare(config: ConfigDict) -> Setup:
    """Reads the data, solves for the noise and binds the method.

    Raises:
      UserError: a bad configuration, unusable data, a batch larger than the data, an unreachable epsilon.
    """
    validate(config)
    return bind(config, dataset_of(config))


def bind(config: ConfigDict, dataset: Dataset, as_mechanism: Callable[..., Mechanism] = Mechanism) -> Setup:
    """``prepare`` for data that was read already.

    Args:
      config: validated.
      dataset: its training part is what the noise is solved for.
      as_mechanism: made from the solved mechanism's fields for the method; an audit records what passes through it.

    Raises:
      UserError: an unusable image size, a batch larger than the data, an unreachable epsilon.
    """
    try:
        base_and_stages(dataset.spec.image_size)
    except ValueError as error:
        raise UserError(f"{dataset.source}: {error} Set --config.data.image_size") from error
    ledger = make_ledger(config, len(dataset.train_labels))
    mechanism = as_mechanism(*ledger.mechanism)
    return Setup(dataset, ledger, efsgd_gan(dataset.spec, hyperparameters_of(config), mechanism))


def make_ledger(config: ConfigDict, dataset_size: int) -> Ledger:
    """The mechanism that ``config`` describes for N examples, with its noise solved for, and its ledger."""
    p, t = config.privacy, config.train
    if t.expected_batch_size > dataset_size:
        raise UserError(
            f"config.train.expected_batch_size is {t.expected_batch_size}, but there are only N = {dataset_size} "
            "training images; lower it"
        )
    if p.delta >= 1 / dataset_size:
        warnings.warn(
            f"delta {p.delta:g} is not below 1/N = {1 / dataset_size:.3g} for N = {dataset_size} training images: such "
            "a delta allows publishing somebody's image outright; lower config.privacy.delta",
            stacklevel=2,
        )
    q = t.expected_batch_size / dataset_size
    no_noise = p.epsilon == float("inf") and p.noise_multiplier == 0
    mechanism = Mechanism(
        dataset_size=dataset_size,
        sampling_probability=q,
        capacity=sample_capacity(
            dataset_size,
            q,
            multiple_of=config.method.microbatch_size or 1,
            overflow_probability=LOCAL_OVERFLOW if p.feedback == "local" else None,
        ),
        noise_multiplier=p.noise_multiplier,
        l2_norm_clip=p.l2_norm_clip.to_dict(),
        feedback=p.feedback,
        feedback_l2_norm_clip=p.feedback_l2_norm_clip or None,
        feedback_decay=None if p.feedback_decay < 0 else p.feedback_decay,
        feedback_share=p.feedback_share or None,
    )
    if p.noise_multiplier == 0 and not no_noise:
        mechanism = calibrate_mechanism(mechanism, t.steps, p.epsilon, p.delta)
    ledger = Ledger(mechanism, p.epsilon, p.delta, t.steps)
    if ledger.steps == 0:
        raise UserError(
            f"epsilon {p.epsilon:g} is unreachable: one step with noise multiplier {mechanism.noise_multiplier:g} "
            f"spends {ledger.spent(1):.3g}; raise config.privacy.noise_multiplier, or set it to 0 to have it solved for"
        )
    return ledger


def identity(config: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What must not change between a run and its continuation. Holds a hash of the data: private."""
    return {"config": config, "data_sha256": dataset.fingerprint(), "dataset_size": len(dataset.train_labels)}
