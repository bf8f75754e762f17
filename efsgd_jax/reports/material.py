"""Reads the files of a run that its page shows: the release, scores, audit and metrics."""

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from efsgd_jax.data import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json
from efsgd_jax.runs.workdir import Workdir

# Keys by which ``read_release`` recognises a privacy report.
REPORT_KEYS = {
    "guarantee",
    "reason_for_no_guarantee",
    "epsilon",
    "delta",
    "phases",
    "software",
    "caveats",
}


class Released(NamedTuple):
    """The content of ``release/`` of a finished run.

    Attributes:
      directory: the run's directory.
      privacy: the privacy report.
      config: the public configuration.
      spec: shape of the images and number of classes.
      class_names: names of the classes, in the order of the labels.
      scores: content of ``release/scores.json``, the scores released by noisy queries; empty if there is no such file.
    """

    directory: Workdir
    privacy: dict[str, Any]
    config: dict[str, Any]
    spec: ImageSpec
    class_names: tuple[str, ...]
    scores: dict[str, Any]

    @property
    def epsilon(self) -> float:
        return float(self.privacy["epsilon"])

    @property
    def data_name(self) -> str:
        """Name of the data set and, if the configuration has one, of the attribute that is the label."""
        data = self.config["data"]
        return f"{data['name']} ({data['attribute']})" if data.get("attribute") else str(data["name"])

    @property
    def packing(self) -> str:
        """The command line that packs what may be published."""
        return f"efsgd release {self._root} release.zip"

    @property
    def published_page(self) -> str:
        """The command line that makes a page that may be published."""
        return f"efsgd report {self._root} --release"

    @property
    def _root(self) -> str:
        return shlex.quote(str(self.directory.root))

    def command(self, program: str) -> str:
        """The command line that runs ``program`` on this run, for readers of the page."""
        return f"efsgd {program} --workdir={self._root}"


def read_release(workdir: str | Path) -> Released:
    """Reads ``release/`` of a run, and nothing else of it.

    Raises:
      UserError: the run is not finished, or a file of it is damaged.
    """
    directory = Workdir(workdir)
    if not directory.root.is_dir():
        raise UserError(f"{directory.root} is not a directory; name the workdir of a run")
    if not directory.finished:
        raise UserError(f"{directory.root} holds no finished run ({directory.generator} is missing); train it first")
    privacy, config = read_json(directory.privacy_json), read_json(directory.config)
    if not isinstance(privacy, dict) or not privacy.keys() >= REPORT_KEYS:
        raise UserError(f"{directory.privacy_json} is not a privacy report; restore it, or train the run again")
    try:
        shape = config["spec"]
        names = tuple(str(name) for name in shape["class_names"])
        spec = ImageSpec(shape["image_size"], shape["channels"], len(names))
        settings = config["config"]
        settings["data"]["name"], settings["method"]["name"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{directory.config} is damaged; restore it, or train the run again") from error
    return Released(directory, privacy, settings, spec, names, optional_json(directory.release / "scores.json"))


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Converts errors caused by the content of the file ``path`` to a ``UserError`` that names the ``remedy``."""
    try:
        yield
    except UserError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); make it again: {remedy}") from error


def optional_json(path: Path) -> dict[str, Any]:
    """Reads the JSON object in a file; empty if there is no such file.

    Raises:
      UserError: the file does not hold a JSON object.
    """
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged: it holds a {type(value).__name__}, not an object; make it again")
    return value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of ``metrics.jsonl``; none if there is no such file. Incomplete lines are left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:  # training was killed while it wrote this line
            continue
        rows.append(row)
    return rows
