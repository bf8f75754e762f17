"""``sample``: synthetic images from a finished run."""

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
CHUNK = 500


class Samples(NamedTuple):
    """Labelled synthetic images: uint8 ``[n, S, S, C]``, int32 ``[n]``, and the name of each label."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def sample(workdir: str | Path, n: int, *, seed: int = 0, out: str | Path | None = None,
           formats: Collection[str] = FORMATS) -> Samples:  # fmt: skip
    """Draws ``n`` images, as many of each class as of any other (up to one).

    Args:
      workdir: a finished run; only its ``release/`` is read.
      n: how many.
      seed: of the latent; need not be secret, the same seed gives the same images.
      out: a new or empty directory for ``samples.npz``, ``grid.png``, ``png/CLASS/*.png`` and ``manifest.json``; None
        writes nothing.
      formats: which of ``FORMATS`` to write.

    Raises:
      UserError: the run is not finished or damaged, or ``out`` is not empty.

    Formal guarantees:
      Post-processing of the released generator: costs nothing beyond what training spent.

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
    """One image for each label, in pieces, so that memory stays flat.

    Args:
      generate: a method's, jitted.
      params: of the released generator.
      key: typed PRNG key of the latents.
      labels: int ``[n]``.

    Returns:
      uint8 ``[n, S, S, C]``.
    """
    chunks = []
    for i in range(0, len(labels), CHUNK):
        part = np.resize(labels[i : i + CHUNK], CHUNK).astype(np.int32)  # one shape, one compilation
        drawn = to_uint8(np.asarray(generate(params, jax.random.fold_in(key, i), jnp.asarray(part))))
        chunks.append(drawn[: len(labels[i : i + CHUNK])])
    return np.concatenate(chunks)


class ReleasedGenerator(NamedTuple):
    """``generate(params, key, labels)`` as in ``Synthesizer``, what it is called with, and the names of the labels."""

    generate: Callable[[Any, jax.Array, jax.Array], jax.Array]
    params: Any
    spec: ImageSpec
    class_names: tuple[str, ...]


def released_generator(directory: Workdir) -> ReleasedGenerator:
    """The generator in ``release/``; nothing else is read.

    Raises:
      UserError: the run is not finished, or damaged.
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
    except Exception as error:  # msgpack and Flax have many for a damaged file
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
