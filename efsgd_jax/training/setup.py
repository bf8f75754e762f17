"""From a configuration to its data, mechanism, ledger and method; every check comes before anything is written."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from efsgd_jax.config import validate
from efsgd_jax.data import Dataset, load_dataset
from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.models.sizes import base_and_stages
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.base import Synthesizer
from efsgd_jax.training.devices import data_mesh


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
        classes=d.get("classes") or None,  # not in the configuration of an older run
        value_range=d.get("value_range") or None,
    )


def mesh_for(config: ConfigDict) -> Mesh | None:
    """The devices that share a run's batches; None for one.

    Raises:
      UserError: the method cannot use them, or a batch cannot be shared equally.
    """
    method = method_named(config.method.name)
    mesh = data_mesh() if method.shares_batches else None
    if mesh is None:
        if jax.process_count() > 1:
            raise UserError(f"config.method.name {config.method.name} trains on one device; leave --distributed out")
        return None
    count, size = mesh.size, config.method.generated_batch_size
    if size % count:
        raise UserError(
            f"config.method.generated_batch_size is {size}, which {count} devices cannot share equally; use a multiple "
            f"of {count}"
        )
    return mesh


def prepare(config: ConfigDict, mesh: Mesh | None = None) -> Setup:
    """Reads the data, solves for the noise and binds the method, on the devices of ``mesh_for(config)``.

    Raises:
      UserError: a bad configuration, unusable data, a batch larger than the data, an unreachable epsilon.
    """
    validate(config)
    return bind(config, dataset_of(config), mesh=mesh)


def bind(
    config: ConfigDict,
    dataset: Dataset,
    as_mechanism: Callable[..., Any] | None = None,
    mesh: Mesh | None = None,
) -> Setup:
    """``prepare`` for data that was read already.

    Args:
      config: validated.
      dataset: its training part is what the noise is solved for.
      mesh: see ``mesh_for``.
      as_mechanism: makes, of the solved mechanism, the one that the method gets; an audit records what passes.

    Raises:
      UserError: an unusable image size, a batch larger than the data, an unreachable epsilon.
    """
    try:
        base_and_stages(dataset.spec.image_size)
    except ValueError as error:
        raise UserError(f"{dataset.source}: {error} Set --config.data.image_size") from error
    ledger = make_ledger(config, len(dataset.train_labels))
    method = method_named(config.method.name)
    mechanism = as_mechanism(ledger.mechanism) if as_mechanism else ledger.mechanism
    shared = {"mesh": mesh} if mesh else {}
    hyperparameters = method.read(config.method.to_dict())
    return Setup(dataset, ledger, method.synthesizer(dataset.spec, hyperparameters, mechanism, **shared))


def make_ledger(config: ConfigDict, dataset_size: int) -> Ledger:
    """The mechanism that ``config`` describes for N examples, with its noise solved for, and its ledger."""
    p, t = config.privacy, config.train
    if p.delta >= 1 / dataset_size:
        warnings.warn(
            f"delta {p.delta:g} is not below 1/N = {1 / dataset_size:.3g} for N = {dataset_size} training images: such "
            "a delta allows publishing an image of the data outright; lower config.privacy.delta",
            stacklevel=2,
        )
    mechanism = method_named(config.method.name).mechanism(config, dataset_size)
    # Without a proof there is no epsilon to stop at: such a run was asked for by name, and says so wherever it can.
    target = p.epsilon if mechanism.proven else float("inf")
    ledger = Ledger(mechanism, target, p.delta, t.steps)
    if ledger.steps == 0:
        raise UserError(
            f"epsilon {p.epsilon:g} is unreachable: one step with noise multiplier {mechanism.noise_multiplier:g} "
            f"spends {format_epsilon(ledger.spent(1), 3)}; raise config.privacy.noise_multiplier, or set "
            "it to 0 to have it solved for"
        )
    return ledger


def identity(config: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What must not change between a run and its continuation. Holds a hash of the data: private."""
    return {"config": config, "data_sha256": dataset.fingerprint(), "dataset_size": len(dataset.train_labels)}
