"""``sample``: generates synthetic images with a finished run's generator."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.data import ImageSpec, to_uint8
from efsgd_jax.errors import UserError
from efsgd_jax.files import check_new_directory, read_json, write_json
from efsgd_jax.images import class_grid, save_class_folders, save_grid, save_npz
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers import method_named

FORMATS = ("npz", "grid", "png")
# Number of images that are generated at a time.
CHUNK = 500


class Samples(NamedTuple):
    """Labelled synthetic images: ``images`` uint8 ``[n, S, S, C]``, ``labels`` int32 ``[n]``, and the class names."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def sample(workdir: str | Path, n: int, *, seed: int = 0, out: str | Path | None = None,
           formats: Collection[str] = FORMATS) -> Samples:  # fmt: skip
    """Generates ``n`` images. The numbers of images of two classes differ by at most one.

    Args:
      workdir: the directory of a finished run; only its ``release/`` is read.
      n: number of images.
      seed: seed of the latents. It need not be secret; the same seed gives the same images.
      out: a new or empty directory for ``samples.npz``, ``grid.png``, ``png/CLASS/*.png`` and ``manifest.json``; None
        to write nothing.
      formats: some of ``FORMATS``, the kinds of files to write.

    Raises:
      UserError: the run is not finished or damaged, ``out`` is not empty, ``n`` is below 1, or a format is unknown.

    Formal guarantees:
      Post-processing of the released generator: it spends nothing beyond what training spent.

    Examples:
      >>> samples = sample("runs/digits", 100)
      >>> samples.images.shape, samples.labels.shape
      ((100, 8, 8, 1), (100,))
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise UserError(f"unknown format {unknown[0]!r}; use some of {', '.join(FORMATS)}")
    if n < 1:
        raise UserError(f"the number of images is {n}; it must be at least 1")
    directory = Workdir(workdir)
    generate, params, _, names = released_generator(directory)
    target = None if out is None else Path(out).expanduser()
    if target is not None:
        check_new_directory(target, "samples")

    labels = np.sort(np.arange(n) % len(names)).astype(np.int32)
    samples = Samples(draw(jax.jit(generate), params, jax.random.key(seed), labels), labels, names)
    if target is not None:
        _write(target, samples, formats, directory, seed)
    return samples


def draw(
    generate: Callable[[Any, jax.Array, jax.Array], jax.Array], params: Any, key: jax.Array, labels: np.ndarray
) -> np.ndarray:
    """Generates one image for each label, in batches of ``CHUNK``, which bounds the memory that the generator needs.

    Args:
      generate: the function that ``Method.make_generate`` returns, compiled.
      params: the parameters of the released generator.
      key: typed PRNG key of the latents.
      labels: class of each image, int ``[n]``.

    Returns:
      The images, uint8 ``[n, S, S, C]``.
    """
    chunks = []
    for i in range(0, len(labels), CHUNK):
        part = np.resize(labels[i : i + CHUNK], CHUNK).astype(np.int32)  # one shape, so that it is compiled once
        drawn = to_uint8(np.asarray(generate(params, jax.random.fold_in(key, i), jnp.asarray(part))))
        chunks.append(drawn[: len(labels[i : i + CHUNK])])
    return np.concatenate(chunks)


class ReleasedGenerator(NamedTuple):
    """A released generator.

    Attributes:
      generate: ``generate(params, key, labels) -> images``; see ``Method.make_generate``.
      params: the released parameters.
      spec: shape of the images and number of classes.
      class_names: names of the classes, in the order of the labels.
    """

    generate: Callable[[Any, jax.Array, jax.Array], jax.Array]
    params: Any
    spec: ImageSpec
    class_names: tuple[str, ...]


def released_generator(directory: Workdir) -> ReleasedGenerator:
    """Reads the generator and its configuration from ``release/``; nothing else of the run is read.

    Raises:
      UserError: the run is not finished, or a file is damaged.
    """
    if not directory.finished:
        raise UserError(f"{directory.root} holds no finished run ({directory.generator} is missing); train it first")
    release = read_json(directory.config)
    shape, settings = release["spec"], release["config"]["method"]
    names = tuple(shape["class_names"])
    spec = ImageSpec(shape["image_size"], shape["channels"], len(names))
    method = method_named(settings["name"])
    generate = method.make_generate(spec, method.read(settings))
    try:
        params = flax.serialization.msgpack_restore(directory.generator.read_bytes())
        jax.eval_shape(generate, params, jax.random.key(0), jnp.zeros(1, jnp.int32))
    except Exception as error:  # msgpack and Flax raise many kinds of exceptions for a damaged file
        raise UserError(
            f"cannot read {directory.generator} ({type(error).__name__}); it is damaged or of another configuration"
        ) from error
    return ReleasedGenerator(generate, params, spec, names)


def _write(target: Path, samples: Samples, formats: Collection[str], directory: Workdir, seed: int) -> None:
    if "npz" in formats:
        save_npz(target / "samples.npz", samples.images, samples.labels, samples.class_names)
    if "grid" in formats:
        save_grid(target / "grid.png", class_grid(samples.images, samples.labels, len(samples.class_names)))
    if "png" in formats:
        save_class_folders(target / "png", samples.images, samples.labels, samples.class_names)
    counts = np.bincount(samples.labels, minlength=len(samples.class_names)).tolist()
    manifest = {
        "images": len(samples.labels),
        "per_class": dict(zip(samples.class_names, counts, strict=True)),
        "shape": list(samples.images.shape[1:]),
        "seed": seed,
        "formats": sorted(formats),
        "generator_sha256": directory.generator_sha256,
        "privacy": read_json(directory.privacy_json),
    }
    write_json(target / "manifest.json", manifest)
