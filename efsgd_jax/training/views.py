"""What a phase reads of the training records: their views, in memory or on disk."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.files import array_on_disk
from efsgd_jax.privacy.region_fill import interpolated
from efsgd_jax.privacy.region_records import Regions
from efsgd_jax.privacy.regions import differing
from efsgd_jax.privacy.stored import Stored
from efsgd_jax.privacy.units import Units
from efsgd_jax.synthesizers.base import Record, Released
from efsgd_jax.training.compilation import compiler_options
from efsgd_jax.training.setup import Setup

PyTree = Any
View = Callable[[Record, Released], PyTree]
# Number of records for which a view is computed at a time.
VIEW_CHUNK = 500
# Number of records on disk whose views are computed by one program.
DISK_CHUNK = 20 * VIEW_CHUNK


def records_in_memory(setup: Setup, view: View | None, released: Released, scratch: Path) -> PyTree:
    """The views of all records, or the records themselves if ``view`` is None.

    If only a region is private, these are also computed of images that are interpolated there.
    """
    del scratch
    data = setup.dataset
    records = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels, jnp.int32))
    rows = view_all(view, records, released) if view else records
    if setup.region is not None:
        blanked = records._replace(image=interpolated(records.image, jnp.asarray(setup.region)))
        seen = view_all(view, blanked, released) if view else blanked
        return Regions(rows, seen, differing(records.image, blanked.image))
    if setup.units is None:
        return rows
    index, present = setup.units
    return Units(jax.tree.map(lambda x: x[index], rows), jnp.asarray(present))


def records_on_disk(setup: Setup, view: View | None, released: Released, scratch: Path) -> PyTree:
    """``records_in_memory`` of records that stay on disk; their views are written to ``scratch``, which is emptied."""
    data = setup.dataset
    shutil.rmtree(scratch, ignore_errors=True)
    images, labels = data.train_images, data.train_labels.astype(np.int32)
    rows: PyTree = Record(images, labels)  # type: ignore[arg-type]
    if view:
        rows = _written_views(view, images, labels, released, scratch)
    if setup.units is None:
        return Stored(rows)
    index, present = setup.units
    return Units(Stored(rows, index), jnp.asarray(present))


def _written_views(view: View, images: np.ndarray, labels: np.ndarray, released: Released, scratch: Path) -> PyTree:
    """The views of all records as memory-mapped files, computed as ``view_all`` does, some at a time."""
    scratch.mkdir(mode=0o700, parents=True)
    compiled = jax.jit(over_all(view), compiler_options=compiler_options())
    arrays: list[np.ndarray] = []
    structure = None
    for start in range(0, len(labels), DISK_CHUNK):
        some = slice(start, start + DISK_CHUNK)
        record = Record(jnp.asarray(images[some]), jnp.asarray(labels[some]))
        leaves, structure = jax.tree.flatten(jax.device_get(compiled(record, released)))
        if not arrays:
            arrays = [
                array_on_disk(scratch / f"{i}.npy", x.dtype, (len(labels), *x.shape[1:])) for i, x in enumerate(leaves)
            ]
        for array, leaf in zip(arrays, leaves, strict=True):
            array[some] = leaf
    return jax.tree.unflatten(structure, arrays)


def over_all(view: View) -> Callable[[Record, Released], PyTree]:
    """``f(records, released)``: the view of every record, computed in batches of ``VIEW_CHUNK``."""
    return lambda records, released: jax.lax.map(lambda record: view(record, released), records, batch_size=VIEW_CHUNK)


def view_all(view: View, records: Record, released: Released) -> PyTree:
    """Applies ``view`` to every record."""
    return jax.jit(over_all(view), compiler_options=compiler_options())(records, released)
