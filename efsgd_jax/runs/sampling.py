"""``sample``: generates synthetic images with a finished run's generator."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.data import to_uint8
from efsgd_jax.errors import UserError
from efsgd_jax.files import check_new_directory, read_json, write_json, write_text
from efsgd_jax.runs.class_counts import class_counts
from efsgd_jax.runs.data_card import Publication, data_card
from efsgd_jax.runs.released import ReleasedGenerator, released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.runs.writers import WRITERS, Info

FORMATS = tuple(WRITERS)
# Those that are written unless others are named.
DEFAULT_FORMATS = ("npz", "grid", "png")
# Number of images that are generated at a time.
CHUNK = 500


class Samples(NamedTuple):
    """Labelled synthetic images: ``images`` uint8 ``[n, S, S, C]``, ``labels`` int32 ``[n]``, and the class names."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def sample(
    workdir: str | Path,
    n: int | None = None,
    *,
    per_class: Mapping[str, int] | None = None,
    proportions: Mapping[str, float] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    formats: Collection[str] = DEFAULT_FORMATS,
    publication: Publication | None = None,
) -> Samples:
    """Generates ``n`` images, in the order of their labels. The numbers of images of two classes differ by at most one.

    All images are in memory. ``write_samples`` writes any number of them.

    Args:
      workdir: the directory of a finished run; only its ``release/`` is read.
      n: number of images; None with ``per_class``.
      per_class: the number of images by class, in the place of ``n``; a class that is not named has none.
      proportions: the share of each class in ``n``, in the place of equal ones; they sum to 1.
      seed: seed of the latents. It need not be secret; the same seed and numbers give the same images.
      out: a new or empty directory for ``samples.npz``, ``grid.png``, ``png/CLASS/*.png``, the data card ``README.md``,
        the release's ``PRIVACY.md``
        and ``manifest.json``; None to write nothing.
      formats: some of ``FORMATS``, the kinds of files to write.
      publication: title, licence and origin for the data card.

    Raises:
      UserError: the run is not finished or damaged, ``out`` is not empty, a number is below 1, or a class or format is
        unknown.

    Formal guarantees:
      Post-processing of the released generator: it spends nothing beyond what training spent.

    Examples:
      >>> samples = sample("runs/digits", 100)
      >>> samples.images.shape, samples.labels.shape
      ((100, 8, 8, 1), (100,))
      >>> sample("runs/digits", per_class={"3": 2, "8": 1}).labels
      array([3, 3, 8], dtype=int32)
    """
    directory = Workdir(workdir)
    drawing = _drawing(directory, n, per_class, proportions, seed, formats)
    batches = []
    with _outputs(directory, drawing, out, formats, seed, publication) as add:
        for images, labels in drawing.batches():
            add(images, labels)
            batches.append(images)
    return Samples(np.concatenate(batches), drawing.labels, drawing.generator.class_names)


def write_samples(
    workdir: str | Path,
    out: str | Path,
    n: int | None = None,
    *,
    per_class: Mapping[str, int] | None = None,
    proportions: Mapping[str, float] | None = None,
    seed: int = 0,
    formats: Collection[str] = DEFAULT_FORMATS,
    publication: Publication | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Generates images and writes them as they come, in memory that does not grow with their number.

    The images and the arguments are those of ``sample``.

    Args:
      advance: called as ``advance(done, total)`` after each batch.

    Returns:
      The number of images of each class.

    Examples:
      >>> write_samples("runs/digits", "many", proportions={"3": 0.9, "8": 0.1}, n=20, formats=["parquet"])
      {'0': 0, '1': 0, '2': 0, '3': 18, '4': 0, '5': 0, '6': 0, '7': 0, '8': 2, '9': 0}
    """
    directory = Workdir(workdir)
    drawing = _drawing(directory, n, per_class, proportions, seed, formats)
    done = 0
    with _outputs(directory, drawing, out, formats, seed, publication) as add:
        for images, labels in drawing.batches():
            add(images, labels)
            done += len(labels)
            if advance:
                advance(done, len(drawing.labels))
    return drawing.counts


def draw(
    generate: Callable[[Any, jax.Array, jax.Array], jax.Array], params: Any, key: jax.Array, labels: np.ndarray
) -> Iterator[np.ndarray]:
    """Generates one image for each label, in batches of ``CHUNK``, which bounds the memory that the generator needs.

    Args:
      generate: the function that ``Method.make_generate`` returns, compiled.
      params: the parameters of the released generator.
      key: typed PRNG key of the latents.
      labels: class of each image, int ``[n]``.

    Yields:
      The images of each batch, uint8 ``[CHUNK, S, S, C]``; the last batch may have fewer.
    """
    for i in range(0, len(labels), CHUNK):
        part = np.resize(labels[i : i + CHUNK], CHUNK).astype(np.int32)  # one shape, so that it is compiled once
        drawn = to_uint8(np.asarray(generate(params, jax.random.fold_in(key, i), jnp.asarray(part))))
        yield drawn[: len(labels[i : i + CHUNK])]


class _Drawing(NamedTuple):
    """A released generator and the labels of the images to draw, in ascending order."""

    generator: ReleasedGenerator
    labels: np.ndarray
    key: jax.Array

    @property
    def counts(self) -> dict[str, int]:
        names = self.generator.class_names
        return dict(zip(names, np.bincount(self.labels, minlength=len(names)).tolist(), strict=True))

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The images and labels of each batch."""
        generate, params, *_ = self.generator
        done = 0
        for images in draw(jax.jit(generate), params, self.key, self.labels):
            yield images, self.labels[done : done + len(images)]
            done += len(images)


def _drawing(
    directory: Workdir,
    n: int | None,
    per_class: Mapping[str, int] | None,
    proportions: Mapping[str, float] | None,
    seed: int,
    formats: Collection[str],
) -> _Drawing:
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise UserError(f"unknown format {unknown[0]!r}; use some of {', '.join(FORMATS)}")
    generator = released_generator(directory)
    counts = class_counts(generator.class_names, n, per_class, proportions)
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return _Drawing(generator, labels, jax.random.key(seed))


@contextlib.contextmanager
def _outputs(
    directory: Workdir,
    drawing: _Drawing,
    out: str | Path | None,
    formats: Collection[str],
    seed: int,
    publication: Publication | None,
) -> Iterator[Callable[[np.ndarray, np.ndarray], None]]:
    """Yields a function that writes a batch in all formats; afterwards writes the data card and the manifest."""
    if out is None:
        yield lambda images, labels: None
        return
    target = Path(out).expanduser()
    check_new_directory(target, "samples")
    spec, names = drawing.generator.spec, drawing.generator.class_names
    info = Info(drawing.labels, spec.shape, names)
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(WRITERS[name](target, info)) for name in FORMATS if name in formats]

        def add(images: np.ndarray, labels: np.ndarray) -> None:
            for write in writers:
                write(images, labels)

        yield add
    privacy = read_json(directory.privacy_json)
    method = read_json(directory.config)["config"]["method"]["name"]
    about = {"seed": seed, "generator_sha256": directory.generator_sha256, "privacy": privacy}
    card = data_card(publication or Publication(), counts=drawing.counts, shape=spec.shape, method=method, **about)
    write_text(target / "README.md", card)
    write_text(target / "PRIVACY.md", directory.privacy_md.read_text(encoding="utf-8"))
    shared = {"images": len(drawing.labels), "per_class": drawing.counts, "shape": list(spec.shape)}
    write_json(target / "manifest.json", {**shared, "formats": sorted(formats), **about})
