"""Black-box membership inference: do released images lie nearer to those that were trained on than to others?"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.audit.bounds import area_under_curve, one_run_lower_bound, true_positive_rate
from efsgd_jax.files import read_json
from efsgd_jax.runs.finished import finished_run
from efsgd_jax.runs.sampling import sample

MAX_IMAGES = 10_000


class Membership(NamedTuple):
    """What the released images say about who was trained on.

    Attributes:
      claimed: the run's epsilon at ``delta``; ``inf`` without a guarantee.
      delta: of the claim.
      bound: epsilon is at least this at 95% confidence, if train and test images were told apart by coins.
      curve: area under the ROC curve; 0.5 is a coin.
      rate: true positives at 1% false positives.
      images: how many of each side were tested.
    """

    claimed: float
    delta: float
    bound: float
    curve: float
    rate: float
    images: int


def nearness(images: np.ndarray, labels: np.ndarray, drawn: np.ndarray, drawn_labels: np.ndarray) -> np.ndarray:
    """Minus the L2 distance, in pixels of [0, 1], from each image to the nearest drawn one of its class.

    Args:
      images: uint8 ``[n, S, S, C]``.
      labels: int ``[n]``.
      drawn: uint8 ``[m, S, S, C]``.
      drawn_labels: int ``[m]``; a class without any gives ``-inf``.

    Returns:
      float ``[n]``.
    """
    result = np.full(len(labels), -np.inf)
    for label in np.unique(labels):
        mine, theirs = labels == label, drawn_labels == label
        if theirs.any():
            index = NearestNeighbors(n_neighbors=1).fit(_flat(drawn[theirs]))
            result[mine] = -index.kneighbors(_flat(images[mine]))[0][:, 0]
    return result


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


def audit_release(workdir: str | Path, *, seed: int = 0) -> Membership:
    """Attacks a finished run with nothing but its released generator.

    Args:
      workdir: of the run, with its ``private/`` part and its data, which say who was trained on.
      seed: of the drawn images.

    Raises:
      UserError: the run is not finished, its data is gone or changed, or jax-privacy is not installed.

    Formal guarantees:
      None: it reads real images; the result is not covered by the run's epsilon. The bound treats the train/test
      split as fair coins; of a split that is not random it says nothing.
    """
    directory, data = finished_run(workdir)
    fake = sample(workdir, min(len(data.train_labels), MAX_IMAGES), seed=seed)
    n = min(len(data.train_labels), len(data.test_labels), MAX_IMAGES)
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(data.train_labels), n, replace=False), rng.choice(len(data.test_labels), n, replace=False)
    members = nearness(data.train_images[rows[0]], data.train_labels[rows[0]], fake.images, fake.labels)
    others = nearness(data.test_images[rows[1]], data.test_labels[rows[1]], fake.images, fake.labels)
    report = read_json(directory.privacy_json)
    return Membership(
        float(report["epsilon"]) if report["guarantee"] else float("inf"),
        report["delta"],
        one_run_lower_bound(members, others, report["delta"]),
        area_under_curve(members, others),
        true_positive_rate(members, others, 0.01),
        n,
    )
