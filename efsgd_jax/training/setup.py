"""Loads the data of a configuration and builds its phases and ledger, with all checks, before anything is written."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from efsgd_jax.config import json_values, validate
from efsgd_jax.data import Dataset, ImageSpec, load_dataset
from efsgd_jax.data.declarations import parse_region
from efsgd_jax.data.groups import UnitRows, unit_rows
from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy import (
    Composition,
    DpSgdMechanism,
    FullBatchMechanism,
    Ledger,
    Mechanism,
    PlannedPhase,
    box,
    calibrate_plan,
)
from efsgd_jax.synthesizers import method_named, public_autoencoder
from efsgd_jax.synthesizers.base import Generate, Phase
from efsgd_jax.synthesizers.config_rules import without_noise
from efsgd_jax.training.devices import data_mesh
from efsgd_jax.training.progress import say
from efsgd_jax.training.public_data import PublicData, load_public

# The mechanisms whose records may stay on disk.
ON_DISK = DpSgdMechanism | FullBatchMechanism


class Setup(NamedTuple):
    """A run that is ready to start.

    Attributes:
      config: the run's configuration.
      dataset: the run's data set.
      ledger: ledger of all phases; ``ledger.steps`` is the number of steps that read private data.
      phases: the phases, each with the number of steps that the ledger allows.
      generate: function that generates images from what the last phase releases.
      memory_hint: the config keys to lower if there is too little memory.
      mesh: the devices over which each batch is split; None for a single device.
      public: public data for the phases that read no private data; None if there is none.
      units: the images of each unit, such as a person; None if each image is a unit of its own.
      region: the mask bool ``[S, S, 1]`` of the private pixels; None if whole images are private.
    """

    config: ConfigDict
    dataset: Dataset
    ledger: Ledger[Composition]
    phases: tuple[Phase, ...]
    generate: Generate
    memory_hint: str
    mesh: Mesh | None
    public: PublicData | None = None
    units: UnitRows | None = None
    region: np.ndarray | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """The properties of the run that must not change when it is continued; not to be published.

        They are the configuration as values for JSON, the number and a hash of the training records, and what describes
        the public data.
        """
        size = self.dataset.num_units
        return {
            "config": json_values(self.config),
            "data_sha256": self.dataset.fingerprint(),
            "dataset_size": size,
            **({"pre_training": self.public.description} if self.public else {}),
        }


def data_settings(config: ConfigDict) -> dict[str, Any]:
    """How ``config.data`` says that its source is read: arguments of ``load_dataset``."""
    d = config.data
    return {
        "image_size": d.image_size or None,
        "channels": d.channels or None,
        "attribute": d.attribute or None,
        "test_fraction": d.test_fraction,
        "classes": d.get("classes") or None,  # runs of older versions lack this key
        "value_range": d.get("value_range") or None,
        "labels": d.get("labels", ""),
        "groups": d.get("groups", ""),
    }


def dataset_of(config: ConfigDict) -> Dataset:
    """Loads the data set that ``config.data`` names.

    With ``config.privacy.region`` an image's place in the source decides whether it is held out, since its bytes, which
    decide otherwise, are those of the region, too: they would decide where its public pixels are used.
    """
    by_place = bool(config.privacy.get("region", ""))  # runs of older versions lack this key
    return load_dataset(
        config.data.name, path=config.data.path or None, split_by_place=by_place, **data_settings(config)
    )


def public_of(config: ConfigDict, spec: ImageSpec) -> PublicData | None:
    """Loads the public data of a configuration, for private images of this shape; None if it names none.

    Raises:
      UserError: the public data cannot be used.
    """
    like = None
    if config.public.weights:
        options = method_named(config.method.name).read(config.method.to_dict())
        like = public_autoencoder.released_like(spec, options)
    return load_public(config, spec, like)


def mesh_for(config: ConfigDict) -> Mesh | None:
    """The mesh of devices that divide the records of a step, or None if the run uses a single device.

    Raises:
      UserError: several processes were started, but the method trains on one device.
    """
    mesh = data_mesh() if method_named(config.method.name).shares_batches else None
    if mesh is None and jax.process_count() > 1:
        raise UserError(f"config.method.name {config.method.name} trains on one device; leave --distributed out")
    return mesh


def prepare(config: ConfigDict, *, shown: bool = False) -> Setup:
    """Loads the data, calibrates the noise and builds the phases, on all devices that the method can use.

    Args:
      config: the run's configuration.
      shown: whether to announce this by a line on standard error.

    Raises:
      UserError: the configuration is invalid, the data cannot be used, the batch is larger than the data, or the target
        epsilon cannot be reached.
    """
    validate(config)
    mesh = mesh_for(config)
    say("reading the data, solving for the noise", shown=shown)
    dataset = dataset_of(config)
    return bind(config, dataset, mesh=mesh, public=public_of(config, dataset.spec))


def bind(
    config: ConfigDict,
    dataset: Dataset,
    as_mechanism: Callable[[Mechanism], Mechanism] | None = None,
    mesh: Mesh | None = None,
    public: PublicData | None = None,
) -> Setup:
    """``prepare`` for a data set that is already loaded.

    Args:
      config: a validated configuration.
      dataset: the data set; the noise is calibrated for the size of its training part.
      as_mechanism: function that replaces the calibrated mechanism of each phase, for audits; None to keep it.
      mesh: the devices to use, from ``mesh_for(config)``.
      public: the public data, from ``public_of``.

    Raises:
      UserError: the method cannot use images of this size, the batch is larger than the data, or the target epsilon
        cannot be reached.
    """
    units = None
    if dataset.train_groups is not None:
        if not method_named(config.method.name).reads_units:
            raise UserError(
                f"config.method.name {config.method.name} has no guarantee for groups of images; use another method, "
                "or remove --config.data.groups"
            )
        units = unit_rows(dataset.train_groups, dataset.train_images, config.data.images_per_group)
    ledger = make_ledger(config, dataset.num_units)
    taken = {phase.name: count for phase, _, count in ledger.mechanism.taken(ledger.steps)}
    plan = []
    for planned in ledger.mechanism.phases:
        mechanism = planned.mechanism
        if mechanism is not None and as_mechanism is not None:
            mechanism = as_mechanism(mechanism)
        steps = planned.steps if mechanism is None else taken[planned.name]
        plan.append(planned._replace(mechanism=mechanism, steps=steps))
    method = method_named(config.method.name)
    hyperparameters = method.read(config.method.to_dict())
    try:
        phases = tuple(method.phases(dataset.spec, hyperparameters, plan, mesh))
    except UserError as error:
        raise UserError(f"{dataset.source}: {error}") from error
    if dataset.on_disk and not all(isinstance(p.mechanism, ON_DISK | None) for p in plan):
        raise UserError(
            f"config.method.name {config.method.name} needs all images in memory, and those of {config.data.path} "
            "stay on disk; use another method, or the source that was prepared"
        )
    region = region_of(config, dataset, plan)
    assert [p.plan for p in phases] == plan, f"{config.method.name} has other phases than it plans"
    generate = method.make_generate(dataset.spec, hyperparameters)
    return Setup(config, dataset, ledger, phases, generate, method.memory_hint, mesh, public, units, region)


def region_of(config: ConfigDict, dataset: Dataset, plan: Sequence[PlannedPhase]) -> np.ndarray | None:
    """The mask of the private pixels that ``config.privacy.region`` names; None if whole images are private.

    Raises:
      UserError: the region is not within the images or is all of them; a phase of the method reads whole images; the
        unit is a person; or the images stay on disk.
    """
    rectangle = parse_region(config.privacy.get("region", ""))  # runs of older versions lack this key
    if rectangle is None:
        return None
    whole = [p.name for p in plan if not isinstance(p.mechanism, DpSgdMechanism | None)]
    if whole:
        raise UserError(
            f"config.privacy.region: the phase {whole[0]} of {config.method.name} reads statistics of whole images; "
            "use a method all of whose private phases are DP-SGD, such as efsgd_gan or born_machine, or no region"
        )
    if dataset.train_groups is not None:
        raise UserError(
            "config.privacy.region protects pixels of one image and no persons; remove it, or --config.data.groups"
        )
    if dataset.on_disk:
        raise UserError("config.privacy.region needs all images in memory; use the source that was prepared")
    try:
        return box(dataset.spec.image_size, *rectangle)
    except UserError as error:
        raise UserError(f"config.privacy.region is {config.privacy.region!r}: {error}") from error


def make_ledger(config: ConfigDict, dataset_size: int) -> Ledger[Composition]:
    """The ledger of the phases that ``config`` plans for N = ``dataset_size`` examples, with calibrated noise.

    Raises:
      UserError: the target epsilon cannot be reached.
    """
    p = config.privacy
    if p.delta >= 1 / dataset_size:
        warnings.warn(
            f"delta {p.delta:g} is not below 1/N = {1 / dataset_size:.3g} for N = {dataset_size} training images or "
            "groups: such a delta allows publishing an image of the data outright; lower config.privacy.delta",
            stacklevel=2,
        )
    plan = tuple(method_named(config.method.name).plan(config, dataset_size))
    if not without_noise(config):
        plan = calibrate_plan(plan, p.epsilon, p.delta, stopping=True)
    composition = Composition(plan)
    # Without a proof there is no epsilon to stop at. Such a run needs allow_unproven or no noise, and has no guarantee.
    target = p.epsilon if composition.proven else float("inf")
    ledger = Ledger(composition, target, p.delta, composition.total_steps)
    reached = len(ledger.mechanism.taken(ledger.steps))
    if reached < len(composition.private):
        first = ledger.mechanism.private[reached][0]
        needed = sum(q.steps for q, _ in composition.private[:reached]) + 1
        before = "one step" if needed == 1 else f"the phases up to the first step of {first.name}"
        raise UserError(
            f"epsilon {p.epsilon:g} is unreachable: {before} with noise multiplier {composition.noise_multiplier:g} "
            f"spends {format_epsilon(ledger.spent(needed), 3)}; raise config.privacy.noise_multiplier, or set "
            "it to 0 to calibrate it"
        )
    return ledger
