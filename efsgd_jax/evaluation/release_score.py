"""``release_score``: publishes an accuracy on real data, with noise, and charges its epsilon to the run."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics import CLASSIFIERS, PROTOCOLS
from efsgd_jax.files import read_json
from efsgd_jax.formatting import format_epsilon, format_lower_bound
from efsgd_jax.privacy.mechanism import IMAGE, REGION
from efsgd_jax.privacy.noisy_count import noisy_mean
from efsgd_jax.runs.ownership import sole_owner
from efsgd_jax.runs.queries import Queries, publish, read_queries, write_queries
from efsgd_jax.runs.release import check
from efsgd_jax.runs.workdir import Workdir

# Largest epsilon of a query. Above it, the noise would be negligible.
MAX_EPSILON = 100.0
# The only kind of score that can be released.
KIND = "gen2real"
# The other kinds of scores, and why they cannot be released.
REFUSED = {
    "real2gen": "its classifier is trained on real images, and one of them may change any number of answers",
    "fidelity": "it compares features of a network that is trained on real images, and no bound is known on what one "
    "image changes",
    "copying": "it measures how much is revealed about single training images",
}


class Answers(NamedTuple):
    """The correct predictions of a classifier on the real test split.

    Attributes:
      right: number of correct predictions, summed over the classifiers.
      num_seeds: S, the number of classifiers, which differ in the seed of their training.
      num_test: number of test images.
      public: values that may be published with the score, such as the number of test images.
    """

    right: int
    num_seeds: int
    num_test: int
    public: dict[str, Any]


class ReleasedScore(NamedTuple):
    """A score that may be published.

    Attributes:
      score: the score, as in ``release/scores.json``.
      privacy: the run's privacy report, as in ``release/privacy.json``.
      charged: whether this call spent epsilon; False if an earlier call had already been charged for the score.
    """

    score: dict[str, Any]
    privacy: dict[str, Any]
    charged: bool


def release_score(
    workdir: str | Path, name: str, epsilon: float, *, target_epsilon: float | None = None, again: bool = False
) -> ReleasedScore:
    """Publishes a noisy gen2real accuracy in ``release/scores.json`` and charges it to the run.

    Args:
      workdir: the directory of a finished run, with its ``private/``, that ``evaluate`` has scored.
      name: ``gen2real.CLASSIFIER``, or ``PROTOCOL.gen2real.CLASSIFIER``. Decide which one before you look at scores.
      epsilon: epsilon of this query. The noise on the accuracy has a standard deviation of about 1.4 / (epsilon M) for
        M test images.
      target_epsilon: the epsilon that training and all queries together may spend from now on; None for the run's
        present target.
      again: if the score was released before, whether to release a new noisy value and to charge for it. Otherwise the
        value that was released is returned.

    Raises:
      UserError: the score cannot be released, the run's unit is a person, it is not finished, has no guarantee or could
        not be packed,
        ``evaluate`` has no such score of this generator, or the target would be exceeded. Nothing is spent then.

    Formal guarantees:
      Everything in ``release/``, the generator and all released scores, is ``(privacy["epsilon"], delta)``-
      differentially private for any image with its label, of the training or of the test split, under the report's
      neighbouring relation. Given the generator, the images generated with a public seed and the classifiers trained on
      them are constants, and the accuracy is ``noisy_mean`` of their correct predictions on the test split:
      ``(epsilon, 0)``. Composition is sequential (``accounting.after_queries``), so that it also holds if one image is
      in both splits. A query is recorded on disk as spent before its noise is sampled, and its value is recorded before
      it is written to ``release/``. If a call is killed, a later call completes it from the record. No charge
      is ever used for two different values.
    """
    _check_arguments(name, epsilon, target_epsilon)
    directory = Workdir(workdir)
    if not directory.finished or not directory.run.is_file():
        raise UserError(f"{directory.root} holds no finished run with its private/ part; train it first")
    with sole_owner(directory):
        queries = read_queries(directory)
        if queries.charged:
            publish(directory, queries)  # completes an earlier call that was killed
        check(directory)
        unit = queries.report()["unit"]
        if unit == REGION:
            raise UserError(
                f"the guarantee of {directory.root} is for {unit}, and a score tells of whole test images: it cannot "
                "be released with noise for a region"
            )
        if unit != IMAGE:
            raise UserError(
                f"the guarantee of {directory.root} is for {unit}, and a score is a count of images, of which a person "
                "may have many: it cannot be released with noise for a single image"
            )
        asked = [q for q in queries.charged if q["name"] == name][-1:]
        if asked and asked[0]["score"] and not again:
            return ReleasedScore(asked[0]["score"], queries.report(), charged=False)
        answers = read_answers(directory, name)
        charge = not asked or asked[0]["score"] is not None
        if charge:
            queries = _charge(queries, name, epsilon, target_epsilon)
            write_queries(directory, queries)
            asked = queries.charged[-1:]
        (query,) = asked
        query["score"] = _drawn(name, query["epsilon"], answers)
        write_queries(directory, queries)
        publish(directory, queries)
        return ReleasedScore(query["score"], queries.report(), charged=charge)


def _check_arguments(name: str, epsilon: float, target_epsilon: float | None) -> None:
    _, kind, classifier = _parts(name)
    if kind in REFUSED:
        raise UserError(f"{name} cannot be released: {REFUSED[kind]}; only accuracies of {KIND} can")
    if kind != KIND or classifier not in CLASSIFIERS:
        raise UserError(f"unknown score {name!r}; use {KIND}.CLASSIFIER with one of {', '.join(CLASSIFIERS)}")
    if not 0 < epsilon <= MAX_EPSILON:
        raise UserError(f"the epsilon of a score is {epsilon:g}; it must be above 0 and at most {MAX_EPSILON:g}")
    if target_epsilon is not None and not 0 < target_epsilon < math.inf:
        raise UserError(f"target_epsilon is {target_epsilon:g}; it must be above 0 and finite")


def _parts(name: str) -> tuple[str, str, str]:
    """Splits the name of a score into the protocol (or ""), the kind, such as gen2real, and the classifier."""
    first, _, rest = name.partition(".")
    protocol, name = (first, rest) if first in PROTOCOLS else ("", name)
    kind, _, classifier = name.partition(".")
    return protocol, kind, classifier


def read_answers(directory: Workdir, name: str) -> Answers:
    """Reads the correct predictions that ``evaluate`` counted for a score of the released generator.

    Raises:
      UserError: ``evaluate`` has no such score of this generator, or its file is damaged.
    """
    protocol, kind, classifier = _parts(name)
    flags = f" --protocol={protocol}" if protocol else ""
    make = f"make it with: efsgd evaluate --workdir={directory.root}{flags}"
    if not directory.scores.is_file():
        raise UserError(f"{directory.scores} is missing; {make}")
    scores = read_json(directory.scores)
    if protocol:
        scores = scores.get("protocols", {}).get(protocol, {})
    found = scores.get(kind, {}).get(classifier)
    if found is None:
        raise UserError(f"{directory.scores} has no {name}; {make}")
    generator = directory.generator_sha256
    if scores.get("generator_sha256") != generator:
        raise UserError(f"{name} in {directory.scores} is of another generator than the released one; {make}")
    try:
        confusion, num_seeds, num_test = found["confusion"], len(found["accuracies"]), int(found["num_test"])
        right = sum(int(row[i]) for i, row in enumerate(confusion))
        whole = sum(map(sum, confusion)) == num_seeds * num_test > 0 and min(map(min, confusion)) >= 0
        public = {"classifier_seeds": num_seeds, "num_test": num_test, "num_train": int(found["num_train"]),
                  "seed": int(scores["seed"]), "generator_sha256": generator}  # fmt: skip
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{name} in {directory.scores} is damaged ({error!r}); {make}") from error
    if not whole:
        raise UserError(f"{name} in {directory.scores} is damaged (its confusion does not add up); {make}")
    return Answers(right, num_seeds, num_test, public)


def _charge(queries: Queries, name: str, epsilon: float, target_epsilon: float | None) -> Queries:
    """Returns ``queries`` with a new query at the end, which is charged and has no value yet.

    Raises:
      UserError: the query would exceed the target.
    """
    total, spent = queries.spent(epsilon), queries.spent()
    target = queries.target_epsilon if target_epsilon is None else target_epsilon
    if total > float(target):
        raise UserError(
            f"{name} with epsilon {epsilon:g} would bring what the run has spent to {format_epsilon(total)}; its "
            f"target is {float(target):g}, of which {format_lower_bound(max(float(target) - spent, 0.0), 4)} is left; "
            f"--target_epsilon={format_epsilon(math.ceil(total * 100) / 100, 6)} allows it"
        )
    charged = [*queries.charged, {"name": name, "epsilon": epsilon, "score": None}]
    return queries._replace(target_epsilon=target, charged=charged)


def _drawn(name: str, epsilon: float, answers: Answers) -> dict[str, Any]:
    """Samples the noisy accuracy and returns it with the other published values."""
    value = noisy_mean(answers.right, answers.num_test, epsilon, answers_per_unit=answers.num_seeds)
    return {
        "name": name,
        "accuracy": value.mean,
        "interval_95": [value.low, value.high],
        "epsilon": epsilon,
        "noise_std": value.noise_std,
        **answers.public,
    }
