"""The record of the scores that a run has released (``private/queries.json``), and the release's files about them."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json, write_json, write_text
from efsgd_jax.privacy.accounting import after_queries
from efsgd_jax.runs.privacy_markdown import to_markdown
from efsgd_jax.runs.privacy_report import with_queries
from efsgd_jax.runs.workdir import Workdir

MECHANISM = "number of right answers on the real test split, plus discrete Laplace noise, over that split's size"


class Queries(NamedTuple):
    """The queries that were charged after training.

    Attributes:
      training: the privacy report as training wrote it.
      target_epsilon: the epsilon that training and queries may spend together; "inf" for no limit.
      charged: the queries in order. Each has its ``name``, its ``epsilon``, and its ``score``: the noisy value with
        everything that is published with it, or None if the noise has not been sampled yet.
    """

    training: dict[str, Any]
    target_epsilon: float | str
    charged: list[dict[str, Any]]

    def spent(self, *more: float) -> float:
        """The epsilon of training, of all charged queries, and of further queries with the epsilons ``more``."""
        return after_queries(self.training["epsilon"], [*(q["epsilon"] for q in self.charged), *more])

    def scores(self) -> list[dict[str, Any]]:
        """The scores that were released, in order."""
        return [q["score"] for q in self.charged if q["score"] is not None]

    def report(self) -> dict[str, Any]:
        """The run's privacy report, which includes the queries if there are any."""
        if not self.charged:
            return self.training
        return with_queries(self.training, self.charged, self.target_epsilon)

    def files(self, directory: Workdir) -> dict[Path, str]:
        """Path -> content of the files in ``release/`` that depend on queries."""
        report, scores = self.report(), self.scores()
        texts = {directory.privacy_json: _json(report), directory.privacy_md: to_markdown(report)}
        if scores:
            texts[directory.released_scores] = _json({"mechanism": MECHANISM, "scores": scores})
        return texts


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def read_queries(directory: Workdir) -> Queries:
    """Reads the queries that were charged. If there are none, the result has the privacy report and an empty list.

    Raises:
      UserError: a file is missing or damaged, or the report is not what training wrote.
    """
    if directory.queries.is_file():
        value = read_json(directory.queries)
        try:
            queries = Queries(**value)
            queries.report(), queries.scores()
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(f"{directory.queries} is damaged ({error!r}); restore it from a copy") from error
        return queries
    written = read_json(directory.released).get(directory.privacy_json.name)
    training = read_json(directory.privacy_json)
    if hashlib.sha256(directory.privacy_json.read_bytes()).hexdigest() != written:
        raise UserError(f"{directory.privacy_json} is not what training wrote; restore it")
    return Queries(training, training["target_epsilon"], [])


def write_queries(directory: Workdir, queries: Queries) -> None:
    """Replaces the record of queries. When this returns, the file survives a loss of power."""
    write_json(directory.queries, queries._asdict(), private=True)


def publish(directory: Workdir, queries: Queries) -> None:
    """Updates the files in ``release/`` to the queries that were charged.

    The recorded hashes of the release's files are updated first. If a call is interrupted, some files do not match
    their hashes, and ``pack`` refuses the release until ``publish`` is called again.
    """
    texts = queries.files(directory)
    hashes = {path.name: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    before = read_json(directory.released)
    if before != {**before, **hashes}:
        write_json(directory.released, {**before, **hashes}, private=True)
    for path, text in texts.items():
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)
