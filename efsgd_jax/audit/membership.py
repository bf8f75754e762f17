"""Black-box membership inference: do released images or tables tell records that were used from others?"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.audit.bounds import area_under_curve, one_run_lower_bound, true_positive_rate
from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json
from efsgd_jax.privacy.mechanism import REGION
from efsgd_jax.runs.finished import finished_run
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.sampling import sample
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.tables.table import Table

# Largest number of images, of the training split, of the test split and generated, that the attack compares.
MAX_IMAGES = 10_000


class Membership(NamedTuple):
    """The result of a membership inference attack on released images, or on a table.

    Attributes:
      claimed: the run's epsilon at ``delta``; ``inf`` if the run has no guarantee.
      delta: the delta at which the claim and the bound hold.
      bound: a lower bound of epsilon at 95% confidence, which assumes that each image was assigned to the training or
        the test part independently, with probability 1/2 (of a table: to the rows that were used, or to the others).
      curve: area under the ROC curve; 0.5 is guessing.
      rate: true positive rate at a false positive rate of 1%.
      images: number of training images that were scored, or rows that were used; as many others were scored.
    """

    claimed: float
    delta: float
    bound: float
    curve: float
    rate: float
    images: int


def nearness(images: np.ndarray, labels: np.ndarray, drawn: np.ndarray, drawn_labels: np.ndarray) -> np.ndarray:
    """Minus the L2 distance from each image to the nearest generated image of its class, with pixels divided by 255.

    Args:
      images: the images to score, uint8 ``[n, S, S, C]``.
      labels: their labels, int ``[n]``.
      drawn: the generated images, uint8 ``[m, S, S, C]``.
      drawn_labels: the labels of the generated images, int ``[m]``.

    Returns:
      float ``[n]``; ``-inf`` for images of a class without a generated image.
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
    """Attacks a finished run; of the run's outputs, the attack uses only the released generator.

    Args:
      workdir: the run's working directory, with its ``private/`` part; the run's data must be available, since it says
        which images were trained on.
      seed: seed of the generated images and of the choice of the images that are tested.

    Raises:
      UserError: the run is not finished, its data is gone or changed, or jax-privacy is not installed.

    Formal guarantees:
      None: real images are read, and the result is not covered by the run's epsilon. As many training
      as test images are compared. The bound assumes that which of them were trained on was decided independently, with
      probability 1/2 each. A random split comes close to this, whatever its proportions; if the split was not random,
      the bound has no meaning.
    """
    directory, data = finished_run(workdir)
    if read_json(directory.privacy_json)["unit"] == REGION:
        raise UserError(
            f"{workdir} protects a region of each image, not who is in the data: there is no claim to attack"
        )
    n = min(len(data.train_labels), len(data.test_labels), MAX_IMAGES)
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(data.train_labels), n, replace=False), rng.choice(len(data.test_labels), n, replace=False)
    score = _score(directory, workdir, min(len(data.train_labels), MAX_IMAGES), seed)
    members = score(data.train_images[rows[0]], data.train_labels[rows[0]])
    others = score(data.test_images[rows[1]], data.test_labels[rows[1]])
    report = read_json(directory.privacy_json)
    claimed = float(report["epsilon"]) if report["guarantee"] else float("inf")
    return _membership(members, others, claimed, report["delta"])


def audit_table(
    table: Table, used: Mapping[str, Sequence[Any]], unused: Mapping[str, Sequence[Any]], *, seed: int = 0
) -> Membership:
    """Attacks a released table by the exact likelihood of rows; of the fit, it uses only what is published.

    Args:
      table: the released table.
      used: the rows that it was fitted to: for each column, a list of entries.
      unused: other rows of the same kind, of which it must be random that they were not used.
      seed: seed of the choice of rows, where there are more of one kind.

    Raises:
      UserError: there are no rows of a kind, ``used`` has another number of rows than the table was fitted to, entries
        are not of the declared columns, or jax-privacy is not installed.

    Formal guarantees:
      None: real rows are read, and the result is not covered by the table's epsilon.

    Examples:
      >>> from efsgd_jax.tables import fit_table
      >>> rows = {"a": ["x", "y"] * 100, "b": ["x", "y"] * 100}
      >>> table = fit_table(rows, {"a": ["x", "y"], "b": ["x", "y"]}, epsilon=1.0, delta=1e-3)
      >>> found = audit_table(table, rows, {"a": ["y"] * 200, "b": ["y"] * 200})
      >>> found.bound < found.claimed
      True
    """
    members, others = table.log_likelihood(used), table.log_likelihood(unused)
    if not (len(members) and len(others)):
        raise UserError(f"{len(members)} rows were used and {len(others)} were not; the attack needs rows of both")
    if len(members) != table.dataset_size:
        raise UserError(
            f"the table was fitted to {table.dataset_size:,} rows, and {len(members):,} are given as used; give the "
            "rows that it was fitted to"
        )
    if np.isnan(members).any() or np.isnan(others).any():
        raise UserError("the table gives rows the likelihood NaN, by which nothing is told apart; fit it again")
    n = min(len(members), len(others), MAX_IMAGES)
    rng = np.random.default_rng(seed)
    members, others = rng.choice(members, n, replace=False), rng.choice(others, n, replace=False)
    return _membership(members, others, table.epsilon, table.delta)


def _membership(members: np.ndarray, others: np.ndarray, claimed: float, delta: float) -> Membership:
    """What the scores of as many members as others show."""
    bound = one_run_lower_bound(members, others, delta)
    curve, rate = area_under_curve(members, others), true_positive_rate(members, others, 0.01)
    return Membership(claimed, delta, bound, curve, rate, len(members))


def _score(
    directory: Workdir, workdir: str | Path, drawn: int, seed: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The attack's score of real images: their likelihood, or else their nearness to drawn ones."""
    generator = released_generator(directory)
    if generator.log_likelihood is None:
        fake = sample(workdir, drawn, seed=seed)
        return lambda images, labels: nearness(images, labels, fake.images, fake.labels)
    likelihood = jax.jit(functools.partial(generator.log_likelihood, generator.params))

    def score(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        parts = range(0, len(labels), 500)
        return np.concatenate([likelihood(images[i : i + 500], labels[i : i + 500]) for i in parts])

    return score
