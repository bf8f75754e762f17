"""``prepare_data``: reads the private images of a configuration once and writes them as arrays that stay on disk."""

import shutil
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from efsgd_jax.config import validate
from efsgd_jax.data.load import load_dataset
from efsgd_jax.data.prepared import NOTICE, NOTICE_TEXT, DiskArrays, write_prepared
from efsgd_jax.errors import UserError
from efsgd_jax.training.progress import say
from efsgd_jax.training.setup import data_settings


class Prepared(NamedTuple):
    """What was written.

    Attributes:
      path: the directory, for ``config.data.path``.
      train: number of training images.
      test: number of test images.
      shape: ``(height, width, channels)`` of an image.
      sha256: fingerprint of the training part. Private.
    """

    path: Path
    train: int
    test: int
    shape: tuple[int, int, int]
    sha256: str


def prepare_data(config: ConfigDict, out: str | Path, *, progress: bool = True) -> Prepared:
    """Reads the images that ``config.data`` names and writes them to a directory, in flat memory.

    Images are cropped, resized, converted and divided into a training and a test part as for a run. A run with
    ``data.name="prepared"`` and ``data.path=out`` then trains on the same images, which stay on disk. Files and
    directories of images (``folder``, ``celeba``) are decoded one after the other to disk; arrays of an ``.npz`` or
    ``idx`` file, the encoded images of Parquet files, and those of ``tfds`` have to fit into memory once.

    Args:
      config: a configuration; only ``config.data`` is used.
      out: a new directory, readable to its owner only. It has this name only when it is complete.
      progress: whether to say on standard error what is done.

    Raises:
      UserError: the data cannot be used, or the directory exists or cannot be written.

    Formal guarantees:
      None: the directory holds the private images themselves, and says so. Nothing is released, so that no epsilon is
      spent. How a record is written depends on that record and on settings only.

    Examples:
      >>> from efsgd_jax import default_config
      >>> made = prepare_data(default_config(), "runs/prepared", progress=False)
      >>> made.train, made.test, made.shape
      (1422, 375, (8, 8, 1))
    """
    validate(config)
    target, settings = Path(out).expanduser(), data_settings(config)
    if config.data.name == "prepared":
        raise UserError(f"{config.data.path} is prepared already; use it as it is")
    if target.exists():
        raise UserError(f"{target} exists; name a new directory")
    # The directory has its name only when it is complete, so that an interrupted preparation is never trained on.
    unfinished = target.with_name(f".{target.name}.preparing")
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        scratch = unfinished / "scratch"
        scratch.mkdir(parents=True)
        unfinished.chmod(0o700)
        (unfinished / NOTICE).write_text(NOTICE_TEXT)
        say("reading the images", shown=progress)
        disk = DiskArrays(scratch)
        dataset = load_dataset(config.data.name, path=config.data.path or None, empty=disk.empty, **settings)
        say("writing them", shown=progress)
        sha256 = write_prepared(dataset, unfinished, disk, settings)
        shutil.rmtree(scratch)
        unfinished.rename(target)
    except OSError as error:
        raise UserError(
            f"cannot write {target} ({error.strerror or error}); free space, or name another --out"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Prepared(target, len(dataset.train_labels), len(dataset.test_labels), dataset.spec.shape, sha256)
