"""Classifiers trained on real images, kept on disk: every run on the same data is scored with the same network."""

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

VERSION = 2  # of the network, its training and the file; raise it when any of them changes
_DIGEST_BYTES = hashlib.sha256().digest_size


def trained_on_real(
    images: np.ndarray, labels: np.ndarray, num_classes: int, training: Training | None = None
) -> FeatureClassifier:
    """``train_feature_classifier`` of real images, or what an earlier call with the same arguments left in the cache.

    The cache is ``classifiers/`` in the directory of the data downloads (``$EFSGD_JAX_DATA``, else the system's cache
    folder). A damaged file is trained and written again; a cache that cannot be written is a warning.

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
    """The parameters, or None if the file is absent or its bytes are not those that were written."""
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
