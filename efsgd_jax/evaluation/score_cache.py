"""A cache on disk of computed scores, so that the same images are not scored twice."""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from efsgd_jax.data.download import cache_directory
from efsgd_jax.errors import UserError
from efsgd_jax.files import write_json
from efsgd_jax.versions import version_of

VERSION = 2  # part of the cache's key; increase it if any score is computed differently


def digest(*parts: Any) -> str:
    """SHA-256 over arrays (shape, dtype and bytes) and over the ``repr`` of anything else."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.shape} {part.dtype} ".encode())
            total.update(np.ascontiguousarray(part).tobytes())
        else:
            total.update(f"{part!r} ".encode())
    return total.hexdigest()


def is_cached(key: tuple[Any, ...]) -> bool:
    """Whether ``cached`` has a file for the key."""
    return _path(key).is_file()


def _path(key: tuple[Any, ...]) -> Path:
    name = digest(VERSION, version_of("efsgd_jax"), version_of("scikit-learn"), *key)
    return cache_directory() / "scores" / f"{name}.json"


def cached(key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
    """Returns ``compute()``, or its cached value from an earlier call with the same key.

    The cache is the folder ``scores/`` in the directory of the data downloads (``$EFSGD_JAX_DATA``, else the system's
    cache folder). If a file is damaged, the value is computed and written again. If the cache cannot be written, there
    is a warning.

    Args:
      key: strings, numbers and arrays that determine the value.
      compute: function that computes the value, which must be representable in JSON.

    Formal guarantees:
      None: scores are functions of real images without noise. The files are readable to their owner only.
    """
    path = _path(key)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = compute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, value, private=True)
    except (OSError, UserError) as error:
        warnings.warn(f"scores will be computed again next time: {error}", stacklevel=2)
    return value
