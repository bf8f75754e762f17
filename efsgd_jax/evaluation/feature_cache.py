"""A cache on disk of classifiers trained on real images, so that all runs on the same data use the same network."""

import hashlib
import warnings
from pathlib import Path

import flax.serialization
import jax
import numpy as np
import optax

from efsgd_jax.data.download import cache_directory
from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics.feature_classifier import FeatureClassifier, Training, train_feature_classifier
from efsgd_jax.files import atomic

VERSION = 3  # part of the cache's key; increase it if the network, its training or the file format changes
_DIGEST_BYTES = hashlib.sha256().digest_size


def trained_on_real(
    images: np.ndarray, labels: np.ndarray, num_classes: int, training: Training | None = None
) -> FeatureClassifier:
    """``train_feature_classifier`` for real images; the result is cached by the arguments.

    The cache is the folder ``classifiers/`` in the directory of the data downloads (``$EFSGD_JAX_DATA``, else the
    system's cache folder). If a file is damaged, the network is trained and written again. If the cache cannot be
    written, there is a warning.

    Formal guarantees:
      None: the network is a function of real images without noise. Its file is readable to its owner only, and must
      not be published.
    """
    training = training or Training()
    path = cache_directory() / "classifiers" / f"{_key(images, labels, num_classes, training)}.msgpack"
    params = _read(path)
    if params is None:
        params = train_feature_classifier(images, labels, num_classes, training).params
        _write(path, params)
    return FeatureClassifier(num_classes, params)


def _key(images: np.ndarray, labels: np.ndarray, num_classes: int, training: Training) -> str:
    digest = hashlib.sha256(f"{VERSION} {num_classes} {training} {images.shape}".encode())
    for array in (images, labels.astype(np.int32)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> optax.Params | None:
    """The parameters in a file of the cache, or None if there is no such file or its checksum is wrong."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, weights = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    whole = hashlib.sha256(weights).digest() == digest
    return flax.serialization.msgpack_restore(weights) if whole else None


def _write(path: Path, params: optax.Params) -> None:
    weights = flax.serialization.to_bytes(jax.device_get(params))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic(path, private=True) as temporary:
            temporary.write_bytes(hashlib.sha256(weights).digest() + weights)
    except (OSError, UserError) as error:
        warnings.warn(f"the classifier will be trained again next time: {error}", stacklevel=2)
