"""Loads the published weights of InceptionV3 for FID: downloads the file if needed, checks it, and converts it."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pooch
from flax.traverse_util import flatten_dict, unflatten_dict

from efsgd_jax.data.download import TIMEOUT_SECONDS, cache_directory
from efsgd_jax.data.validate import one_line
from efsgd_jax.errors import UserError
from efsgd_jax.evaluation.metrics.inception import NUM_CLASSES, NUM_FEATURES, SIDE, Inception, InceptionV3
from efsgd_jax.evaluation.metrics.torch_file import read_state_dict

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
VARIANCE_OFFSET = 1e-3  # the epsilon that every batch normalisation adds to the variance
NORMALISATION = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"  # batch normalisation's count of training batches, in newer files; not needed


def load_inception(path: Path | str | None = None) -> InceptionV3:
    """InceptionV3 with the weights in a file of pytorch-fid's layout.

    Args:
      path: the file. None for the published one in the cache directory (``$EFSGD_JAX_DATA``, else the system's cache
        folder), which is downloaded (91 MiB) if it is not there.

    Returns:
      The network; its ``published`` says whether the file is the published one, by its SHA-256.

    Raises:
      UserError: there is no such file, the download failed, or the file is damaged or has the weights of another
        network.
    """
    file = fetch_inception_weights() if path is None else Path(path).expanduser()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read InceptionV3's weights from {file}: {one_line(error)}; give the file's path"
        ) from error
    params = to_flax(read_state_dict(content, file), file)
    return InceptionV3(params, published=hashlib.sha256(content).hexdigest() == SHA256)


def fetch_inception_weights() -> Path:
    """Path of the published file in the cache directory. It is downloaded if needed, and its SHA-256 is checked.

    Raises:
      UserError: the download failed, or the directory cannot be written.
    """
    directory = cache_directory() / "inception"
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        shelf = pooch.create(path=directory, base_url=URL, registry={FILE: f"sha256:{SHA256}"})
        return Path(shelf.fetch(FILE, downloader=pooch.HTTPDownloader(timeout=TIMEOUT_SECONDS)))
    # OSError covers the network (requests' exceptions derive from it) and the disk; ValueError a wrong checksum.
    except (OSError, ValueError) as error:
        raise UserError(
            f"InceptionV3's weights are not in {directory} and downloading them failed ({type(error).__name__}: "
            f"{one_line(error)}); with a copy of {URL}{FILE} at hand, put it there or give its path"
        ) from error
    finally:
        logger.setLevel(level)


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in the published file.

    These are a kernel and four vectors of batch normalisation for each convolution, and the last dense layer.
    """
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    params: Any = jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (NUM_CLASSES, NUM_FEATURES), "fc.bias": (NUM_CLASSES,)}
    for name, layer in flatten_dict(params, sep=".").items():
        convolution = name.removesuffix(".kernel")
        if convolution not in (name, "fc"):
            height, width, channels, features = layer.shape
            shapes[f"{convolution}.conv.weight"] = (features, channels, height, width)
            shapes |= {f"{convolution}.bn.{vector}": (features,) for vector in NORMALISATION}
    return shapes


def to_flax(tensors: Mapping[str, np.ndarray], file: object) -> dict[str, Any]:
    """Converts the published tensors to the parameters of ``Inception``, with batch normalisation folded in.

    With ``s = weight / sqrt(running_var + 0.001)``, a convolution's kernel is multiplied by ``s`` and its bias is
    ``bias - s * running_mean``. This is computed in float64; the result is float32.

    Args:
      tensors: the tensors by their published names. Batch normalisation's counts of batches are ignored.
      file: name of the file, for messages.

    Raises:
      UserError: a name is missing or unknown, a tensor has another shape, a value is not a finite float, or a variance
        is negative.
    """
    shapes = published_shapes()
    _check(tensors, shapes, file)
    params = {"fc.kernel": tensors["fc.weight"].T}
    for name in (key.removesuffix(".conv.weight") for key in shapes if key.endswith(".conv.weight")):
        weight, bias, mean, variance = (tensors[f"{name}.bn.{vector}"].astype(np.float64) for vector in NORMALISATION)
        scale = weight / np.sqrt(variance + VARIANCE_OFFSET)
        params[f"{name}.kernel"] = tensors[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
        params[f"{name}.bias"] = bias - scale * mean
    return {"params": jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), unflatten_dict(params, sep="."))}


def _check(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], file: object) -> None:
    found = {name for name in tensors if not name.endswith(f".bn.{COUNTER}")}
    for names, verdict in ((set(shapes) - found, "lacks"), (found - set(shapes), "has beyond them")):
        if names:
            raise UserError(
                f"{file} {verdict} {len(names)} of the {len(shapes)} tensors of FID's InceptionV3, such as "
                f"{min(names)}; use {FILE}"
            )
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise UserError(f"{file}: {name} has shape {tensor.shape}; in FID's InceptionV3 it has {shape}; use {FILE}")
        if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
            raise UserError(f"{file}: {name} ({tensor.dtype}) has values that are no finite floats; use {FILE}")
        if name.endswith("running_var") and tensor.min() < 0:
            raise UserError(f"{file}: {name} has a variance of {tensor.min():g}; use {FILE}")
