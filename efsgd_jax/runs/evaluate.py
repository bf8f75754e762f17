"""``evaluate``: gen2real and real2gen of a finished run, and how far its images are from the real ones."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tqdm

from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.metrics import (
    CLASSIFIERS,
    DEFAULT_CLASSIFIERS,
    FID_IMAGES,
    PROTOCOLS,
    SPLITS,
    Scores,
    Utility,
    frechet_distance_of_features,
    inception_score,
    score,
    to_json,
    utility,
)
from efsgd_jax.runs.feature_cache import trained_on_real
from efsgd_jax.runs.files import read_json, write_json
from efsgd_jax.runs.sample import sample
from efsgd_jax.runs.setup import finished_run

MAX_SYNTHETIC = 10_000
T = TypeVar("T")


def evaluate(
    workdir: str | Path,
    *,
    num_images: int | None = None,
    classifiers: tuple[str, ...] | None = None,
    fidelity: bool = False,
    protocol: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Scores:
    """Scores a finished run against the data set it was trained on; writes ``private/scores.json``.

    gen2real: trained on synthetic images, tested on the real test split. real2gen: trained on the real training
    split, tested on synthetic images. IS: of a CNN trained on the real training split. FID: over that CNN's
    penultimate layer, of at most 20,000 synthetic images and as many real training images, the papers' reference.

    Args:
      workdir: a finished run, with its ``private/``.
      num_images: synthetic images; None for the protocol's number, or for as many as there are real training images,
        at most 10,000. Without a protocol real2gen trains on as many real images, of a fixed random choice.
      classifiers: which of ``CLASSIFIERS``; None for the protocol's, or logistic regression and CNN.
      fidelity: also IS and FID. The CNNs trained on real images are then kept in the cache directory, for its owner
        only: runs on the same data share them, so that their scores compare.
      protocol: a key of ``PROTOCOLS``, which says all but the number of images, and under which its scores are filed,
        beside those without a protocol.
      seed: of the synthetic images.
      progress: whether to show a bar on standard error.

    Raises:
      UserError: the run is not finished, its data is no longer there, an unknown classifier or protocol, too few
        images.

    Formal guarantees:
      None: scores read real images and are not covered by the run's epsilon.
    """
    classifiers, fidelity = _plan(classifiers, fidelity, protocol)
    directory, data = finished_run(workdir)
    num_real, k = len(data.train_labels), data.spec.num_classes
    if num_images is None:
        num_images = PROTOCOLS[protocol].num_images if protocol else min(num_real, MAX_SYNTHETIC)
    if fidelity and num_images < SPLITS:
        raise UserError(f"the number of images is {num_images}; an inception score needs at least {SPLITS}")
    num_fid_images = min(FID_IMAGES, num_images, num_real) if fidelity else 0
    rows = np.sort(_some(num_real if protocol else num_images, num_real))
    real_train = data.train_images[rows], data.train_labels[rows]
    real_test = data.test_images, data.test_labels
    with _stages(1 + 2 * len(classifiers) + fidelity, progress) as stage:
        fake = stage("sample", functools.partial(sample, workdir, num_images, seed=seed))
        generated = fake.images, fake.labels
        scores = Scores(
            gen2real={c: stage(f"gen2real {c}", utility, generated, real_test, k, c) for c in classifiers},
            real2gen={c: stage(f"real2gen {c}", _real2gen, real_train, generated, k, c, fidelity) for c in classifiers},
            class_names=data.class_names,
            fidelity=stage("IS and FID", _fidelity, data, fake.images, num_fid_images) if fidelity else {},
            protocol=protocol or "",
            num_images=num_images,
            num_fid_images=num_fid_images,
        )
    write_json(directory.scores, _filed(directory.scores, scores), private=True)
    return scores


def _plan(classifiers: tuple[str, ...] | None, fidelity: bool, protocol: str | None) -> tuple[tuple[str, ...], bool]:
    """The classifiers, and whether to compute IS and FID."""
    unknown = sorted(set(classifiers or ()) - set(CLASSIFIERS))
    if unknown:
        raise UserError(f"unknown classifier {unknown[0]!r}; use some of {', '.join(CLASSIFIERS)}")
    if protocol is None:
        return DEFAULT_CLASSIFIERS if classifiers is None else classifiers, fidelity
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; use one of {', '.join(PROTOCOLS)}")
    if classifiers is not None:
        raise UserError(f"protocol {protocol} names its own classifiers; leave out the classifiers or the protocol")
    return PROTOCOLS[protocol].classifiers, True


def _real2gen(
    real: tuple[np.ndarray, np.ndarray],
    generated: tuple[np.ndarray, np.ndarray],
    num_classes: int,
    classifier: str,
    cached: bool,
) -> Utility:
    if not cached or classifier != "cnn":
        return utility(real, generated, num_classes, classifier)
    predicted = trained_on_real(*real, num_classes).predict(generated[0])
    return score(predicted, generated[1], num_classes, len(real[1]))


def _some(count: int, total: int) -> np.ndarray:
    """Up to ``count`` of ``range(total)``, shuffled, always the same: images may be sorted by class."""
    return np.random.default_rng(0).permutation(total)[:count]


def _fidelity(data: Dataset, fake: np.ndarray, num_fid_images: int) -> dict[str, float]:
    classifier = trained_on_real(data.train_images, data.train_labels, data.spec.num_classes)
    shuffled = fake[_some(len(fake), len(fake))]
    mean, std = inception_score(classifier.probabilities(shuffled))
    real = data.train_images[_some(num_fid_images, len(data.train_images))]
    features = classifier.features(real), classifier.features(shuffled[:num_fid_images])
    return {
        "fid_classifier": frechet_distance_of_features(*features),
        "inception_score": mean,
        "inception_score_std": std,
    }


@contextlib.contextmanager
def _stages(total: int, progress: bool) -> Iterator[Callable[..., Any]]:
    """``stage(name, compute, *arguments)`` computes, and shows which of ``total`` stages that is."""
    with tqdm.tqdm(total=total, disable=not progress, unit="stage", dynamic_ncols=True) as bar:

        def stage(name: str, compute: Callable[..., T], *arguments: Any) -> T:
            bar.set_description(name)
            result = compute(*arguments)
            bar.update()
            return result

        yield stage


def _filed(path: Path, scores: Scores) -> dict[str, Any]:
    """The file's new content: each protocol's scores under its name, those without one at the top."""
    try:
        earlier = read_json(path)
    except UserError:  # absent or damaged: there is nothing to keep
        earlier = {}
    if scores.protocol:
        return {**earlier, scores.protocol: to_json(scores)}
    return {**to_json(scores), **{name: earlier[name] for name in PROTOCOLS if name in earlier}}
