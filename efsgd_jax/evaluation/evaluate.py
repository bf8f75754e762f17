"""``evaluate``: compares a run's synthetic images with its real data, for utility, fidelity and copying."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from efsgd_jax.config import validate
from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.gross_differences import gross_differences
from efsgd_jax.evaluation.metrics import (
    CLASSIFIERS,
    DEFAULT_CLASSIFIERS,
    FIDELITY,
    PROTOCOLS,
    SPLITS,
    Scores,
    load_inception,
    protocol_lines,
    to_json,
)
from efsgd_jax.evaluation.samples_file import read_samples
from efsgd_jax.evaluation.scoring import METRICS, Plan, score_images
from efsgd_jax.files import read_json, write_json
from efsgd_jax.runs.finished import finished_run
from efsgd_jax.runs.sampling import Samples, sample
from efsgd_jax.training.setup import dataset_of

# Defaults: the largest number of generated images, and the number of seeds of each classifier.
MAX_SYNTHETIC = 10_000
SEEDS = 3


def evaluate(
    workdir: str | Path,
    *,
    num_images: int | None = None,
    metrics: tuple[str, ...] | None = None,
    classifiers: tuple[str, ...] | None = None,
    classifier_seeds: int | None = None,
    protocol: str | None = None,
    inception: str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Scores:
    """Scores a finished run against the data set it was trained on; writes ``private/scores.json``.

    The metrics are:

    - ``utility``: accuracies of classifiers. gen2real: trained on synthetic images and tested on the real test split.
      real2gen: trained on the real training split and tested on synthetic images.
    - ``fidelity``: FID, KID, inception score, precision, recall, density and coverage, over the features of a CNN that
      is trained on the real training split. Synthetic images are compared with the same number of real training
      images: at most 10,000 or, with a protocol, the protocol's number.
    - ``copying``: whether synthetic images are closer to training images than to held-out ones.

    Scores that were computed before are read from the cache directory, whose files only their owner can read.

    Args:
      workdir: the directory of a finished run, with its ``private/``.
      num_images: number of synthetic images. None for the protocol's number; without a protocol, for as many as there
        are real training images, at most 10,000. Without a protocol, real2gen trains on a fixed random subset of as
        many real images.
      metrics: some of ``METRICS``; one of the names of ``FIDELITY`` (fid, kid, isc, prc, as in torch-fidelity) asks
        for fidelity. None for all of them or, with a protocol, for utility and fidelity.
      classifiers: some of ``CLASSIFIERS``. None for the protocol's or, without a protocol, for ``DEFAULT_CLASSIFIERS``.
      classifier_seeds: number of seeds with which each classifier is trained. None for 1 with a protocol, 3 without.
      protocol: a key of ``PROTOCOLS``, which sets the metrics, the classifiers and their seeds: the arguments of these
        names must be None with it. Its scores are stored under its name, beside those without a protocol.
      inception: the file with InceptionV3's weights, or ``"download"``, to compare the features of this network too
        (slow). None to leave them out.
      seed: seed of the synthetic images.
      progress: whether to show progress on standard error: a bar in a terminal, else a line for each score.

    Raises:
      UserError: the run is not finished, its data cannot be found, a metric, classifier or protocol is unknown, an
        argument contradicts the protocol, or there are too few images.

    Formal guarantees:
      None: scores read real images and are not covered by the run's epsilon.

    Examples:
      >>> scores = evaluate("runs/digits", num_images=200, metrics=("utility",), classifiers=("logistic_regression",))
      >>> 0 <= scores.gen2real["logistic_regression"].accuracy <= 1
      True
    """
    _check(metrics, classifiers, classifier_seeds, protocol)
    directory, data = finished_run(workdir)
    count = _number_of_images(num_images, protocol, data)
    plan = _plan(data, count, metrics, classifiers, classifier_seeds, protocol, inception)
    fake = sample(workdir, count, seed=seed)
    privacy = read_json(directory.privacy_json)
    delta = privacy["delta"] if privacy["guarantee"] else None
    scores = _remarked(score_images(fake, data, plan, progress=progress), protocol, data, fake, delta)
    of_generator = {"generator_sha256": directory.generator_sha256, "seed": seed}
    write_json(directory.scores, _filed(directory.scores, scores, of_generator), private=True)
    return scores


def evaluate_samples(
    samples: str | Path,
    config: ConfigDict,
    *,
    metrics: tuple[str, ...] | None = None,
    classifiers: tuple[str, ...] | None = None,
    classifier_seeds: int | None = None,
    protocol: str | None = None,
    inception: str | Path | None = None,
    samples_range: str = "",
    progress: bool = False,
) -> Scores:
    """Scores images from a file or directory, made by any system, against the data set of ``config``.

    The scores are returned, and not written to a run.

    Args:
      samples: an .npz file with ``x_train`` and ``y_train``, class folders, Parquet files, or a directory that
        ``sample`` wrote. Labels are needed for ``utility`` only.
      config: a configuration whose ``data`` group names the data set.
      samples_range: the values of the samples that become black and white, such as -1..1. "" for 0..255 if they are
        integers and 0..1 if they are floats.

    The other arguments are those of ``evaluate``.

    Raises:
      UserError: the file is damaged, its images do not have the data set's shape, a class has no image, or an error of
        ``evaluate``.
    """
    _check(metrics, classifiers, classifier_seeds, protocol)
    validate(config)
    data = dataset_of(config)
    labelled = bool(protocol) or metrics is None or "utility" in metrics
    fake = read_samples(samples, data, samples_range, labelled=labelled)
    count = _number_of_images(len(fake.labels), protocol, data)
    plan = _plan(data, count, metrics, classifiers, classifier_seeds, protocol, inception)
    return _remarked(score_images(fake, data, plan, progress=progress), protocol, data, fake, None, of_run=False)


def _check(
    metrics: tuple[str, ...] | None,
    classifiers: tuple[str, ...] | None,
    classifier_seeds: int | None,
    protocol: str | None,
) -> None:
    for kind, asked, known in (("metric", metrics, (*METRICS, *FIDELITY)), ("classifier", classifiers, CLASSIFIERS)):
        unknown = sorted(set(asked or ()) - set(known))
        if unknown:
            raise UserError(f"unknown {kind} {unknown[0]!r}; use some of {', '.join(known)}")
    if classifier_seeds is not None and classifier_seeds < 1:
        raise UserError(f"the number of classifier seeds is {classifier_seeds}; it must be at least 1")
    if protocol is None:
        return
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; use one of {', '.join(PROTOCOLS)}")
    given = (("metrics", metrics), ("classifiers", classifiers), ("classifier seeds", classifier_seeds))
    own = " and ".join(name for name, value in given if value is not None)
    if own:
        raise UserError(f"protocol {protocol} names its own {own}; leave out the {own} or the protocol")


def _number_of_images(num_images: int | None, protocol: str | None, data: Dataset) -> int:
    if num_images is not None:
        return num_images
    return PROTOCOLS[protocol].num_images if protocol else min(len(data.train_labels), MAX_SYNTHETIC)


def _plan(
    data: Dataset,
    num_images: int,
    metrics: tuple[str, ...] | None,
    classifiers: tuple[str, ...] | None,
    classifier_seeds: int | None,
    protocol: str | None,
    inception: str | Path | None,
) -> Plan:
    asked = metrics
    metrics = tuple("fidelity" if name in FIDELITY else name for name in (METRICS if asked is None else asked))
    if data.spec.num_classes == 1:
        if protocol or (asked and "utility" in asked):
            raise UserError("the images have one class: no classifier can be trained; use --metrics=fidelity,copying")
        metrics = tuple(metric for metric in metrics if metric != "utility")
    splits = PROTOCOLS[protocol].splits if protocol else SPLITS
    if (protocol or "fidelity" in metrics) and num_images < splits:
        raise UserError(f"the number of images is {num_images}; an inception score needs at least {splits}")
    network = None
    if inception and "fidelity" in metrics:
        network = load_inception(None if inception == "download" else inception)
    if protocol:
        p = PROTOCOLS[protocol]
        return Plan(("utility", "fidelity"), p.classifiers, (0,), None, p.fid_images, network, p.splits, p.real2gen)
    seeds = tuple(range(SEEDS if classifier_seeds is None else classifier_seeds))
    classifiers = DEFAULT_CLASSIFIERS if classifiers is None else classifiers
    return Plan(metrics, classifiers, seeds, num_images, MAX_SYNTHETIC, network)


def _remarked(
    scores: Scores, protocol: str | None, data: Dataset, fake: Samples, delta: float | None, *, of_run: bool = True
) -> Scores:
    """The scores with what is grossly wrong with the images ``fake`` and, if there is a protocol, its name and remarks;
    for ``delta`` and ``of_run`` see ``protocol_lines``."""
    wrong = gross_differences(scores, data, fake.images, fake.labels)
    if not protocol:
        return scores._replace(remarks=tuple(wrong))
    p = PROTOCOLS[protocol]
    remarks = protocol_lines(p, delta, len(data.train_labels), scores.num_images, of_run=of_run)
    if p.averaged:
        accuracies = [100 * u.accuracy for u in scores.gen2real.values()]
        remarks.insert(0, f"gen2real, its classifiers' mean: {np.mean(accuracies):.1f} ± {np.std(accuracies):.1f}")
    return scores._replace(protocol=protocol, remarks=(*wrong, *remarks))


def _filed(path: Path, scores: Scores, of_generator: dict[str, Any]) -> dict[str, Any]:
    """The new content of the file of scores.

    Scores of a protocol are stored under its name; those without a protocol at the top level. Other stored scores are
    kept: those of protocols always, those without one if they are of the same images.
    """
    try:
        earlier = read_json(path)
    except UserError:  # absent or damaged: there is nothing to keep
        earlier = {}
    protocols = earlier.get("protocols", {})
    if scores.protocol:
        return {**earlier, "protocols": {**protocols, scores.protocol: {**of_generator, **to_json(scores)}}}
    made = {**of_generator, "num_images": scores.num_images}
    same = all(earlier.get(key) == value for key, value in made.items())
    lost = [kind for kind in ("gen2real", "real2gen", "fidelity", "copying") if earlier.get(kind)]
    if lost and not same:
        warnings.warn(
            f"{path} had {', '.join(lost)} of {earlier.get('num_images')} other images of this run; they are "
            f"replaced by those of {scores.num_images}, since scores are compared for the same images only",
            stacklevel=3,
        )
    kept = {k: v for k, v in earlier.items() if k != "remarks"} if same else {}
    new = to_json(scores)
    for kind in ("gen2real", "real2gen", "fidelity"):  # other classifiers and networks keep their scores
        if kept.get(kind):
            new[kind] = {**kept[kind], **new.get(kind, {})}
    return {**kept, **made, **new, **({"protocols": protocols} if protocols else {})}
