"""The sources ``mnist`` and ``fashion_mnist``: from a given path, the cache, or a download with checksums."""

import logging
import os
from pathlib import Path

import pooch

from efsgd_jax.data.idx import read_idx
from efsgd_jax.data.npz import read_npz
from efsgd_jax.data.raw import RawDataset
from efsgd_jax.data.validate import check_path, one_line
from efsgd_jax.errors import UserError

# Environment variable with the path of the cache directory.
CACHE_VARIABLE = "EFSGD_JAX_DATA"
TIMEOUT_SECONDS = 10

_DIGITS = tuple(str(i) for i in range(10))
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CLASS_NAMES = {"mnist": _DIGITS, "fashion_mnist": _CLOTHES}

MIRRORS = {
    "mnist": (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    "fashion_mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
}
# The MD5 sums that the data sets' own pages and torchvision publish.
CHECKSUMS = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
}


def read_known(name: str, path: Path | str | None) -> RawDataset:
    """Reads ``mnist`` or ``fashion_mnist``.

    If ``path`` is given, it is read (an .npz file with Keras' keys, or a directory of idx files). Otherwise the data is
    taken from the cache directory (``$EFSGD_JAX_DATA``, or the system's cache folder): from ``NAME.npz`` if it exists,
    or else from the idx files in ``NAME/``, which are downloaded if they are missing.

    Raises:
      UserError: the path is unusable, or nothing is cached and the download failed.
    """
    names = CLASS_NAMES[name]
    if path is not None:
        given = check_path(path, name, "an .npz file or a directory of idx files")
        return read_idx(given, names) if given.is_dir() else read_npz(given, names)
    cache = cache_directory()
    archive = cache / f"{name}.npz"
    return read_npz(archive, names) if archive.is_file() else read_idx(fetch(name, cache / name), names)


def cache_directory() -> Path:
    """The directory of downloaded files and of what evaluations cache: ``$EFSGD_JAX_DATA`` or the system's folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("efsgd_jax")).expanduser()


def fetch(name: str, directory: Path) -> Path:
    """Downloads those of the four files of ``name`` that are not in ``directory`` with the right checksums.

    Returns:
      ``directory``.

    Raises:
      UserError: all mirrors failed, or the directory cannot be written.
    """
    logger = pooch.get_logger()  # it logs each download
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for file in CHECKSUMS[name]:
            _fetch_file(name, file, directory)
    finally:
        logger.setLevel(level)
    return directory


def _fetch_file(name: str, file: str, directory: Path) -> None:
    """Downloads one file of the data set ``name`` from the first mirror that has it, if it is not in the directory."""
    failures = []
    for mirror in MIRRORS[name]:
        files = pooch.create(path=directory, base_url=mirror, registry=CHECKSUMS[name])
        try:
            files.fetch(file, downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS))
        # OSError covers the network (requests' exceptions derive from it) and the disk; ValueError a wrong checksum.
        except (OSError, ValueError) as error:
            failures.append(f"{type(error).__name__}: {one_line(error)}")
        else:
            return
    raise UserError(
        f"{name} is not in {directory} and downloading {file} failed ({failures[-1]}); with a copy at hand, set "
        "--config.data.path=FILE.npz (keys x_train, y_train, x_test, y_test) or a directory of idx files"
    )
