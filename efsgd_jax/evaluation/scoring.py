"""Scores labelled images against a data set; scores that were computed before are read from the cache."""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from efsgd_jax.data import Dataset
from efsgd_jax.evaluation.feature_cache import trained_on_real
from efsgd_jax.evaluation.metrics import (
    SPLITS,
    FeatureClassifier,
    InceptionV3,
    Scores,
    Training,
    Utility,
    copying,
    exact_copies,
    fidelity_scores,
    inception_score,
    score,
    utility,
)
from efsgd_jax.evaluation.score_cache import cached, digest, is_cached
from efsgd_jax.runs.sampling import Samples

METRICS = ("utility", "fidelity", "copying")
# Number of generated images, those nearest to a training image, that the report shows beside it.
CLOSEST = 12


class Plan(NamedTuple):
    """The scores to compute.

    Attributes:
      metrics: some of ``METRICS``.
      classifiers: classifiers of gen2real and real2gen, keys of ``CLASSIFIERS``.
      seeds: seeds of the classifiers' training.
      num_real: largest number of real images that real2gen trains on; None for all.
      num_fidelity: largest number of real images, and of synthetic ones, whose features are compared. It is also the
        largest number of synthetic images that are tested for copying.
      inception: InceptionV3, to compare its features in addition to those of the CNN; None to leave it out.
      splits: number of parts of the inception score.
      real2gen: whether to compute real2gen in addition to gen2real.
    """

    metrics: tuple[str, ...]
    classifiers: tuple[str, ...]
    seeds: tuple[int, ...]
    num_real: int | None
    num_fidelity: int
    inception: InceptionV3 | None = None
    splits: int = SPLITS
    real2gen: bool = True


# A number of images from which scoring takes long, and what is said then.
MANY = 5000
LONG = "each score is kept when it is done: after an interruption the same command goes on"


def score_images(fake: Samples, data: Dataset, plan: Plan, *, progress: bool = False) -> Scores:
    """Computes all scores of ``plan``, or reads them from the cache.

    Args:
      fake: synthetic images, with the data set's shape and classes.
      data: the data set. gen2real is tested on its test split, with which copying is compared too; all other scores
        read the training split.
      plan: the scores to compute.
      progress: whether to show progress on standard error: a bar in a terminal, else a line for each score.

    Formal guarantees:
      None: scores read real images and are not covered by any epsilon; neither is what is cached, for its owner only.
    """
    key = (digest(fake.images, fake.labels), data.fingerprint(), digest(data.test_images, data.test_labels))
    stages = _stages(fake, data, plan)
    found: dict[str, Any] = {}
    in_terminal, start = progress and sys.stderr.isatty(), time.monotonic()
    if progress and len(fake.images) >= MANY:
        print(LONG, file=sys.stderr, flush=True)
    with tqdm.tqdm(total=len(stages), disable=not in_terminal, unit="stage", dynamic_ncols=True) as bar:
        for number, ((kind, name, options), compute) in enumerate(stages.items(), 1):
            bar.set_description(f"{kind} {name}".strip())
            of_stage = (kind, name, *options, *key)
            if progress and not in_terminal:
                after = f", after {time.monotonic() - start:.0f} s" if number > 1 else ""
                kept = ", kept from before" if is_cached(of_stage) else ""
                line = f"scoring, {number} of {len(stages)}{after}: {kind} {name}".rstrip() + kept
                print(line, file=sys.stderr, flush=True)
            found.setdefault(kind, {})[name] = cached(of_stage, compute)
            bar.update()
    return Scores(
        class_names=data.class_names,
        gen2real={name: _utility(value) for name, value in found.get("gen2real", {}).items()},
        real2gen={name: _utility(value) for name, value in found.get("real2gen", {}).items()},
        fidelity=found.get("fidelity", {}),
        copying=found.get("copying", {}).get("", {}),
        num_images=len(fake.labels),
    )


Stages = dict[tuple[str, str, tuple[Any, ...]], Callable[[], Any]]


def _stages(fake: Samples, data: Dataset, plan: Plan) -> Stages:
    """Maps ``(kind, name, options)`` of each score to the function that computes it.

    The options are what the score depends on in addition to the images.
    """
    k = data.spec.num_classes
    generated, real_test = (fake.images, fake.labels), (data.test_images, data.test_labels)
    rows = np.sort(fixed_subset(plan.num_real or len(data.train_labels), len(data.train_labels)))
    real_train = data.train_images[rows], data.train_labels[rows]
    stages: Stages = {}
    if "utility" in plan.metrics:
        kinds = [("gen2real", generated, real_test), ("real2gen", real_train, generated)]
        for kind, train, test in kinds if plan.real2gen else kinds[:1]:
            for c in plan.classifiers:
                compute = functools.partial(_compute_utility, kind, train, test, k, c, plan.seeds)
                stages[kind, c, (plan.seeds, len(train[1]))] = compute
    if "fidelity" in plan.metrics:
        options: tuple[Any, ...] = (plan.num_fidelity, plan.splits)
        tested = (digest(data.test_images),)  # whose accuracy is reported too
        stages["fidelity", "classifier", options + tested] = lambda: {
            **_fidelity(_classifier(data), fake, data, plan),
            "real_accuracy": float(np.mean(_classifier(data).predict(data.test_images) == data.test_labels)),
        }
        if plan.inception:
            network = plan.inception
            options += tuple(map(digest, jax.tree.leaves(jax.device_get(network.params))))
            stages["fidelity", "inception", options] = lambda: _fidelity(network, fake, data, plan)
    if "copying" in plan.metrics:
        stages["copying", "", (plan.num_fidelity,)] = lambda: _copying(fake, data, plan.num_fidelity)
    return stages


def _classifier(data: Dataset) -> FeatureClassifier:
    return trained_on_real(data.train_images, data.train_labels, data.spec.num_classes)


def _compute_utility(
    kind: str,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    num_classes: int,
    classifier: str,
    seeds: tuple[int, ...],
) -> dict[str, Any]:
    if kind == "real2gen" and classifier == "cnn":  # its networks are cached for other runs on the same data
        networks = [trained_on_real(*train, num_classes, Training(seed=seed)) for seed in seeds]
        value = score([n.predict(test[0]) for n in networks], test[1], num_classes, len(train[1]))
    else:
        value = utility(train, test, num_classes, classifier, seeds)
    return {**value._asdict(), "confusion": value.confusion.tolist()}


def _utility(value: dict[str, Any]) -> Utility:
    confusion, accuracies = np.array(value["confusion"]), tuple(value["accuracies"])
    return Utility(**{**value, "confusion": confusion, "accuracies": accuracies})


def _fidelity(network: FeatureClassifier | InceptionV3, fake: Samples, data: Dataset, plan: Plan) -> dict[str, float]:
    count = min(plan.num_fidelity, len(fake.labels), len(data.train_labels))
    # Shuffled, because the parts of the inception score are contiguous and the images may be sorted by class.
    shuffled = fake.images[fixed_subset(len(fake.images), len(fake.images))]
    real = data.train_images[fixed_subset(count, len(data.train_images))]
    features, probabilities = network.features_and_probabilities(shuffled)
    real_features, _ = network.features_and_probabilities(real)
    scores = fidelity_scores(real_features, features[:count], probabilities[:count])
    if count < len(shuffled) or plan.splits != SPLITS:  # the inception score needs no real images
        mean, std = inception_score(probabilities, plan.splits)
        scores |= {"inception_score": mean, "inception_score_std": std}
    return scores


def _copying(fake: Samples, data: Dataset, most: int) -> dict[str, Any]:
    rows = np.sort(fixed_subset(most, len(fake.images)))
    classifier = _classifier(data)
    parts = fake.images[rows], data.train_images, data.test_images
    pixels, neighbours = copying(*(x.reshape(len(x), -1) / np.float32(255.0) for x in parts))
    features, _ = copying(*map(classifier.features, parts))
    exact = int(exact_copies(*parts).sum())
    closest = np.argsort(neighbours.distances, kind="stable")[:CLOSEST]
    return {
        "flagged": bool(exact or pixels.flagged or features.flagged),
        "exact_copies": exact,
        "spaces": {"pixels": pixels._asdict(), "classifier": features._asdict()},
        "closest": [
            {
                "generated": int(rows[i]),
                "train": int(neighbours.rows[i]),
                "distance": float(neighbours.distances[i]),
                "space": "pixels",
            }
            for i in closest
        ],
    }


def fixed_subset(count: int, total: int) -> np.ndarray:
    """Up to ``count`` of the indices ``range(total)``, in an order that is random but the same in every call.

    A random choice, because images may be sorted by class; fixed, so that scores can be computed again.
    """
    return np.random.default_rng(0).permutation(total)[:count]
