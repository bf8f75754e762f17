"""Loads what ``config.public`` names: public images, or the weights of an autoencoder that was trained on some."""

import hashlib
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import numpy as np
from ml_collections import ConfigDict

from efsgd_jax.data import ImageSpec, load_dataset
from efsgd_jax.errors import UserError

PyTree = Any


class PublicData(NamedTuple):
    """Public data, as a post-processing phase gets it.

    Attributes:
      content: images, uint8 ``[M, S, S, C]``, or weights as a dictionary.
      description: number of images and SHA-256, for the privacy report; without any path.
    """

    content: PyTree
    description: str


def load_public(config: ConfigDict, spec: ImageSpec, weights_like: PyTree = None) -> PublicData | None:
    """Loads the public data of a configuration; None if it names none.

    Args:
      config: a validated configuration.
      spec: shape of the private images, to which public images are cropped, resized and converted.
      weights_like: shapes and dtypes that weights must have.

    Raises:
      UserError: the file or directory cannot be used, or is the private one.
    """
    keys = config.public
    if keys.weights:
        return _weights(Path(keys.weights).expanduser(), weights_like)
    if not keys.path:
        if config.method.get("autoencoder_width"):
            raise UserError(
                f"config.method.autoencoder_width is {config.method.autoencoder_width}, and there are no public images "
                "to train the autoencoder on: set --config.public.path to some, or --config.public.weights to what "
                "`efsgd pretrain` wrote; without public images use another config, such as configs/folder.py"
            )
        return None
    if config.data.path and Path(keys.path).expanduser().resolve() == Path(config.data.path).expanduser().resolve():
        raise UserError(
            f"config.public.path {keys.path} is also config.data.path: what is learned from public images is published "
            "without noise; name other images, which everyone may see"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about records of which there are two; these are public
        data = load_dataset(keys.name, path=keys.path, image_size=spec.image_size, channels=spec.channels, classes="1")
    images = np.concatenate([data.train_images, data.test_images])
    return PublicData(images, f"{len(images)} images, SHA-256 {hashlib.sha256(images.tobytes()).hexdigest()}")


def _weights(path: Path, like: PyTree) -> PublicData:
    try:
        content = path.read_bytes()
        found = flax.serialization.msgpack_restore(content)
        shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), found)
    except OSError as error:
        raise UserError(f"config.public.weights {path} cannot be read ({error.strerror}); name a file") from error
    except Exception as error:  # msgpack and Flax raise many kinds of exceptions for a damaged file
        raise UserError(f"config.public.weights {path} is no file of weights; `efsgd pretrain` writes one") from error
    if shapes != jax.tree.map(lambda x: (x.shape, str(x.dtype)), like):
        raise UserError(
            f"config.public.weights {path} has weights of other shapes; pre-train with the same data.image_size, "
            "data.channels, method.autoencoder_width and method.autoencoder_channels"
        )
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)):
        raise UserError(f"config.public.weights {path} has NaN or infinity; pre-train again")
    return PublicData(found, f"weights, SHA-256 {hashlib.sha256(content).hexdigest()}")
