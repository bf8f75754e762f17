"""One batch on several devices: each device clips and sums its rows, and one all-reduce adds the sums."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from efsgd_jax.privacy.checks import check_batch
from efsgd_jax.privacy.clipped_sum import ClippedSum

PyTree = Any
DATA = "data"
# The fields of a ``ClippedSum`` that have a row for each example.
PER_EXAMPLE = ("clipping_excess", "l2_norms", "clipped", "losses", "aux", "finite")


def coarse_and_rest(tree: PyTree, longest: jax.typing.ArrayLike) -> tuple[PyTree, PyTree]:
    """Splits ``x`` into ``coarse + rest``, so that the sum over devices hardly depends on its order.

    ``coarse`` is a multiple of a step (2^-22 of ``longest``, rounded up to a power of two), so that float32 adds such
    values exactly, in any order, as long as every partial sum is at most ``longest`` in absolute value. ``rest`` is at
    most half a step, so that the rounding of its sum is negligible. If the step is not finite, ``coarse`` is ``x``.

    Args:
      tree: pytree of the addends of one device.
      longest: a bound on the absolute value of every partial sum over the devices.
    """
    step = jnp.exp2(jnp.ceil(jnp.log2(jnp.maximum(longest, 1e-30)))) * 2.0**-22

    def coarse(x: jax.Array) -> jax.Array:
        return jnp.where(jnp.isfinite(step), jnp.round(x / step) * step, x).astype(x.dtype)

    multiples = jax.tree.map(coarse, tree)
    return multiples, jax.tree.map(jnp.subtract, tree, multiples)


def over_devices(clipped: Callable[..., ClippedSum], mesh: Mesh) -> Callable[..., ClippedSum]:
    """``clipped(params, batch, keys, mask, carried)``, with the rows divided among the devices of the axis ``data``.

    The rows are padded to a multiple of the number of devices, and assigned to the devices in turn, since a Poisson
    batch has its padding at the end. Devices communicate only the returned values: one all-reduce of the sums, and a
    few numbers per example.

    Args:
      clipped: the function that clips and sums the rows of one device; its argument ``whole`` is the number of rows on
        all devices together, including padding.
      mesh: the mesh of the devices.

    Raises:
      ValueError: the mesh has no axis ``data``.

    Formal guarantees:
      Those of ``clipped``: the sum over devices is the sum over the batch, and each row is on one device. No noise is
      added here; the caller adds it once, to the sum.
    """
    if DATA not in mesh.shape:
        raise ValueError(f"the mesh has the axes {tuple(mesh.shape)}; it needs one named {DATA!r}.")
    devices = mesh.shape[DATA]

    def share(params: PyTree, batch: PyTree, keys: jax.Array, mask: jax.Array, carried: PyTree) -> ClippedSum:
        mine = clipped(params, batch, keys, mask, carried, whole=devices * keys.shape[0])
        longest = [keys.shape[0] * devices * x for x in (mine.sensitivity, mine.outer_l2_norm_clip) if x is not None]
        parts = [coarse_and_rest(x, n) for x, n in zip((mine.clipped_sum, mine.outer_sum), longest, strict=False)]
        sums = [jax.tree.map(jnp.add, *both) for both in jax.lax.psum(parts, DATA)]
        return mine._replace(clipped_sum=sums[0], outer_sum=sums[1] if len(sums) > 1 else None)

    rows, everywhere = P(DATA), P()
    each = ClippedSum._make(rows if name in PER_EXAMPLE else everywhere for name in ClippedSum._fields)
    # check_vma=False: with the check, JAX would sum the gradients of replicated parameters over the devices, and so
    # before they are clipped.
    on_mesh = jax.shard_map(
        share, mesh=mesh, in_specs=(everywhere, rows, rows, rows, rows), out_specs=each, check_vma=False
    )

    def together(
        params: PyTree, batch: PyTree, keys: jax.Array, mask: jax.Array | None = None, carried: PyTree | None = None
    ) -> ClippedSum:
        size = check_batch(batch, keys, mask, carried)
        mask = jnp.ones(size, bool) if mask is None else jnp.asarray(mask)
        padded = -(-size // devices) * devices
        interleaved = jnp.arange(padded).reshape(-1, devices).T.reshape(-1)
        real = interleaved < size
        batch, keys, mask, carried = jax.tree.map(
            lambda x: x[jnp.where(real, interleaved, 0)], (batch, keys, mask, carried)
        )
        done = on_mesh(params, batch, keys, mask & real, carried)

        def in_order(x: jax.Array) -> jax.Array:
            return jnp.swapaxes(x.reshape(devices, -1, *x.shape[1:]), 0, 1).reshape(x.shape)[:size]

        values = {name: jax.tree.map(in_order, getattr(done, name)) for name in PER_EXAMPLE}
        return done._replace(**values)

    return together
