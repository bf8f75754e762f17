"""The privacy report of a run, as ``privacy.json`` has it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from efsgd_jax.privacy.accounting import after_queries
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.privacy.mechanism import BLANK_REGION, IMAGE, PERSON, REGION, ZERO_OUT, Description
from efsgd_jax.privacy.plan import Composition
from efsgd_jax.runs.statement import DEFAULT_RANGE, NO_OTHER_LEVEL
from efsgd_jax.training.setup import Setup
from efsgd_jax.versions import version_of

UNCOVERED_SCORES = "Scores computed on real data (gen2real and the like) are not covered by epsilon"
UNDECLARED = (
    "Which images show the same person was not given to this run (config.data.groups). A person in several images is "
    "protected less, and one in many hardly at all."
)
REGION_ONLY = (
    f"{NO_OTHER_LEVEL} Who is in the data, the labels and all pixels outside of the region may be found out from what "
    "is released, also exactly. The region has to be chosen without looking at what is private, and what the pixels "
    "outside show of those inside is not hidden. The region is one of images as they are trained on: if they are "
    "resized, pixels of the originals mix over its edge, by up to two pixels of whichever are larger, and are "
    "protected only further inside."
)
# What the summary of a mechanism has to add where only a region is private.
REGION_SUMMARY = (
    "; of each gradient only what the region changes in it, and the gradient of images that are interpolated "
    "there is added without noise"
)
CAVEATS = (
    f"{UNCOVERED_SCORES}.",
    "Choosing hyperparameters by looking at results on the private data costs privacy that is not counted here.",
    "What is listed as public is not protected: the number of training images or persons, the classes, the image size, "
    "the channels and the range of values.",
)
# The caveats of a unit, which come first.
OF_THE_UNIT = {IMAGE: (UNDECLARED,), PERSON: (), REGION: (REGION_ONLY,)}
QUERY_CAVEATS = (
    f"{UNCOVERED_SCORES}, except those released through noisy queries, which this report lists.",
    "Which scores are released, and for which images, has to be decided without looking at them: a choice by looking "
    "is not covered.",
)


def public_facts(
    dataset_size: int,
    shape: Mapping[str, Any],
    value_range: str,
    pre_training: str = "",
    images_per_person: int = 0,
    region: str = "",
) -> dict[str, Any]:
    """The properties of the data that the report lists as public, and that are therefore not protected.

    Args:
      dataset_size: number N of training images or, if they have groups, of groups.
      shape: ``image_size``, ``channels`` and ``class_names`` as in the release's ``config.json``.
      value_range: the value of ``config.data.value_range``; "" if it was not declared; the report then
        states the default rule.
      pre_training: description of the public data on which a network was pre-trained; "" without pre-training.
      images_per_person: the largest number of images of a group that are used; 0 if each image is a unit of its own.
      region: the value of ``config.privacy.region``; "" if whole images are protected.
    """
    return {
        "dataset_size": dataset_size,
        "classes": list(shape["class_names"]),
        "image_size": shape["image_size"],
        "channels": shape["channels"],
        "value_range": value_range or DEFAULT_RANGE,
        **({"pre_training": pre_training} if pre_training else {}),
        **({"images_per_person": images_per_person} if images_per_person else {}),
        **({"region": region} if region else {}),
    }


def report_of(setup: Setup, steps: int | None = None) -> dict[str, Any]:
    """The privacy report of a run that took ``steps`` private steps; None for all that its ledger allows."""
    config, data = setup.config, setup.dataset
    shape = {"image_size": data.spec.image_size, "channels": data.spec.channels, "class_names": data.class_names}
    pre_training = setup.public.description if setup.public else ""
    most = config.data.images_per_group if data.train_groups is not None else 0
    public = public_facts(
        data.num_units, shape, config.data.value_range, pre_training, most, config.privacy.get("region", "")
    )
    taken = setup.ledger.steps if steps is None else steps
    return privacy_report(setup.ledger, taken, debugging_seed=config.train.seed >= 0, public=public)


def privacy_report(
    ledger: Ledger[Composition], steps: int, *, debugging_seed: bool, public: Mapping[str, Any]
) -> dict[str, Any]:
    """The privacy report of training: what was spent, and the facts that this statement depends on.

    Args:
      ledger: the run's ledger.
      steps: number of private steps that were taken, over all phases.
      debugging_seed: whether ``train.seed`` was set, so that the noise is known and there is no guarantee.
      public: the result of ``public_facts``.
    """
    composition = ledger.mechanism
    spent = ledger.report(steps)
    described = {
        phase.name: (mechanism.describe(count, ledger.delta, spent["pld"]), count)
        for phase, mechanism, count in composition.taken(steps)
    }
    private = math.isfinite(spent["pld"]) and not debugging_seed and composition.proven
    unit = REGION if "region" in public else PERSON if "images_per_person" in public else IMAGE
    reason = ""
    if debugging_seed:
        reason = "the noise key came from train.seed, so that anyone can subtract the noise"
    elif any(d.no_guarantee for d, _ in described.values()):
        reason = next(d.no_guarantee for d, _ in described.values() if d.no_guarantee)
    elif not private:
        reason = "no noise was added"
    report = {
        "guarantee": private,
        "reason_for_no_guarantee": reason,
        "epsilon": _number(spent["pld"]),
        "delta": ledger.delta,
        "accountant": "PLD (dp-accounting), proven",
        "epsilon_by_rdp_without_truncation": _number(spent["rdp_untruncated"]),
        "target_epsilon": _number(ledger.target_epsilon),
        "delta_below_one_over_n": ledger.delta < 1 / composition.dataset_size,
        "unit": unit,
        "neighbouring_relation": _relation((d.neighbouring_relation for d, _ in described.values()), unit),
        "public": dict(public),
        "steps": steps,
        "phases": [_phase(name, found, count, unit) for name, (found, count) in described.items()],
        "caveats": [*OF_THE_UNIT[unit], *CAVEATS],
        "software": {name: version_of(name) for name in ("efsgd_jax", "jax", "dp-accounting")},
    }
    for found, _ in described.values():
        if found.accountings:
            report["accountings"] = {name: _number(value) for name, value in found.accountings.items()}
            report["accounting_meanings"] = dict(found.accounting_meanings)
    return report


def _relation(relations: Iterable[str], unit: str) -> str:
    """The relation that holds for all phases: replacing a record covers blanking it."""
    found = list(relations)
    if unit == REGION:
        return BLANK_REGION
    return (ZERO_OUT if ZERO_OUT in found else found[0]).replace(IMAGE, unit)


def _phase(name: str, described: Description, steps: int, unit: str) -> dict[str, Any]:
    return {
        "name": name,
        "mechanism": described.summary + (REGION_SUMMARY if unit == REGION else ""),
        "sampler": described.sampler,
        "steps": steps,
        "sensitivity": described.sensitivity,
        "mechanism_parameters": described.parameters,
    }


def with_queries(
    training: Mapping[str, Any], queries: Sequence[Mapping[str, Any]], target_epsilon: float | str
) -> dict[str, Any]:
    """The privacy report of a run with a guarantee that also answered noisy queries.

    Args:
      training: the report of the training alone.
      queries: the queries, at least one, each with its ``name``, its ``epsilon`` and, once it has one, its ``score``.
      target_epsilon: the epsilon that training and queries may spend together.
    """
    charged = [q["epsilon"] for q in queries]
    by_rdp = float(training["epsilon_by_rdp_without_truncation"])
    return {
        **training,
        "epsilon": after_queries(training["epsilon"], charged),
        "epsilon_by_rdp_without_truncation": _number(after_queries(by_rdp, charged)),
        "target_epsilon": target_epsilon,
        "training_epsilon": training["epsilon"],
        "queries": [_listed(q) for q in queries],
        "caveats": [*QUERY_CAVEATS, *(c for c in training["caveats"] if not c.startswith(UNCOVERED_SCORES))],
    }


def _listed(query: Mapping[str, Any]) -> dict[str, Any]:
    """What the report says of a query; once it has a value, also this and the public number of test images."""
    score = query.get("score")
    found = {"accuracy": score["accuracy"], "num_test": score["num_test"]} if score else {}
    return {"name": query["name"], "epsilon": query["epsilon"], **found}


def _number(x: float) -> float | str:
    """A number for JSON, which has no infinity."""
    return x if math.isfinite(x) else "inf"
