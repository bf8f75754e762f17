"""One batch on many devices: each clips and sums its share, and the sums are added once."""

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
    """``x = coarse + rest`` with multiples of a step of 2^-22 of ``longest``, of which float32 adds up any number
    exactly while the sum is no longer than that, and a rest so small that how it is rounded does not matter."""
    step = jnp.exp2(jnp.ceil(jnp.log2(jnp.maximum(longest, 1e-30)))) * 2.0**-22

    def coarse(x: jax.Array) -> jax.Array:
        return jnp.where(jnp.isfinite(step), jnp.round(x / step) * step, x).astype(x.dtype)

    multiples = jax.tree.map(coarse, tree)
    return multiples, jax.tree.map(jnp.subtract, tree, multiples)


def over_devices(clipped: Callable[..., ClippedSum], mesh: Mesh) -> Callable[..., ClippedSum]:
    """``clipped(params, batch, keys, mask, carried)``, with rows shared by the devices of the mesh's ``data`` axis.

    Rows are interleaved across the devices, since a Poisson batch has its padding at the end, and padded to a multiple
    of the number of devices. The only thing that travels is what the caller gets: one all-reduce of the sums, and a few
    numbers per example.

    Formal guarantees:
      Those of ``clipped``: the sum over devices is the sum over the batch, with each row on one device. Noise is not
      added here but to the sum, once.
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
    # Without vma: it would add up the gradients of replicated parameters by itself, before they are clipped.
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
