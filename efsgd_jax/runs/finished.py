"""Opens a finished run together with the data that it was trained on."""

from pathlib import Path

from ml_collections import ConfigDict

from efsgd_jax.data import Dataset
from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.training.setup import dataset_of


def finished_run(workdir: str | Path) -> tuple[Workdir, Dataset]:
    """Returns a finished run's directory, and the data set that it was trained on.

    Raises:
      UserError: the run is not finished, its ``private/`` is missing, or its data cannot be found or has changed.
    """
    directory = Workdir(workdir)
    if not directory.finished or not directory.run.is_file():
        raise UserError(f"{directory.root} holds no finished run with its private/ part; train it first")
    run = read_json(directory.run)
    data = dataset_of(ConfigDict(run["config"]))
    if data.fingerprint() != run["data_sha256"]:
        raise UserError(f"{data.source} is no longer the data that {directory.root} was trained on; restore it")
    return directory, data
