"""Mutants whose faults show only with several coordinates, leaves, microbatches or devices, or with unusual records."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from efsgd_jax.audit.games import Game
from efsgd_jax.audit.mutant import Mutant, Patches
from efsgd_jax.audit.scores import not_a_float32_normal
from efsgd_jax.audit.suite import mechanism
from efsgd_jax.audit.sum_games import SumGame
from efsgd_jax.audit.tree_games import devices_at_hand, direction, of_convolution, of_leaves
from efsgd_jax.privacy import DpSgdMechanism, feedback, ghost
from efsgd_jax.privacy.devices import DATA
from efsgd_jax.privacy.noise import Integers, to_integers

PyTree = Any
PRIVACY = "efsgd_jax.privacy"


class _Numpy:
    """``jax.numpy`` with some functions replaced."""

    def __init__(self, **replaced: Callable[..., Any]):
        self._replaced = replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced[name] if name in self._replaced else getattr(jnp, name)


def float32_noise(tree: PyTree, std: Any, sensitivity: Any, key: jax.Array) -> PyTree:
    """The noise that most libraries add: ``jax.random.normal``, which has 2^23 values, none beyond 5.42 deviations."""
    del sensitivity
    keys = jax.random.split(key, len(jax.tree.leaves(tree)))
    keys = jax.tree.unflatten(jax.tree.structure(tree), list(keys))
    return jax.tree.map(lambda x, k: x + std * jax.random.normal(k, x.shape, x.dtype), tree, keys)


def noise_on_the_first_coordinates(tree: PyTree, std: Any, sensitivity: Any, key: jax.Array) -> PyTree:
    """Noise on the first coordinate of each leaf only."""

    def one(x: jax.Array, noisy: jax.Array) -> jax.Array:
        return x.reshape(-1).at[0].set(noisy.reshape(-1)[0]).reshape(x.shape)

    return jax.tree.map(one, tree, _add_noise(tree, std, sensitivity, key))


def one_key_for_all_leaves(tree: PyTree, std: Any, sensitivity: Any, key: jax.Array) -> PyTree:
    """Noise from one key for all leaves: leaves of the same shape get the same noise."""
    return jax.tree.map(lambda x: _add_noise(x, std, sensitivity, key), tree)


def shares_of_the_noise(tree: PyTree, std: Any, sensitivity: Any, key: jax.Array) -> PyTree:
    """The noise of n devices that each add 1 / n of the standard deviation independently: 1 / sqrt(n) of it in all."""
    for device_key in jax.random.split(key, devices_at_hand()):
        tree = _add_noise(tree, std / devices_at_hand(), sensitivity, device_key)
    return tree


def halved_norm_of_convolutions(*args: Any) -> Any:
    """Ghost clipping that computes half of the norm of a kernel's gradient."""
    part = _convolution(*args)
    return part._replace(squared_norms=[x / 4 for x in part.squared_norms])


def float32_sums(rows: jax.Array, groups: jax.Array, num_groups: int, bits: int) -> Integers:
    """Sums of the rows of each group, in floating point."""
    del bits
    return to_integers(jax.ops.segment_sum(rows, groups, num_groups))


def one_residual(residual: PyTree, indices: jax.Array) -> PyTree:
    """Every unit gets the sum of the residuals of all units."""
    return jax.tree.map(lambda r: jnp.full(indices.shape, jnp.sum(r)), residual)


_add_noise, _convolution = feedback.add_noise, ghost._convolution
# Padding rows of microbatches, which repeat row 0, are not masked out.
COUNTED_PADDING: Patches = {
    f"{PRIVACY}.clipping.jnp": _Numpy(pad=lambda mask, width: jnp.pad(mask, width, constant_values=True))  # type: ignore[dict-item]
}
KEPT_NAN: Patches = {f"{PRIVACY}.clipped_sum.jnp": _Numpy(isfinite=lambda x: jnp.ones_like(x, bool))}  # type: ignore[dict-item]
# The gradients are summed over the devices before they are clipped, as JAX does for replicated parameters.
SUMMED_BEFORE_THE_CLIP: Patches = {f"{PRIVACY}.clipping.round_once": lambda tree: jax.lax.psum(tree, DATA)}


def _less_of_the_others(seen: jax.Array, change: jax.Array, q: float) -> jax.Array:
    """A score for a canary with a NaN gradient: if it is not dropped, the sum is NaN, and 0 plus noise is released."""
    del change, q
    return -jnp.sum(seen @ ravel_pytree(direction())[0])


def tree_mutants() -> list[Mutant]:
    """All mutants of this module; those of a mesh are included if there are several devices."""
    full = DpSgdMechanism(dataset_size=5, sampling_probability=1.0, capacity=5, noise_multiplier=1.0)
    leaves = of_leaves("four leaves, microbatches of 4", full, microbatch_size=4)
    found = [
        Mutant("noise on the first coordinate only", leaves, patches={
            f"{PRIVACY}.feedback.add_noise": noise_on_the_first_coordinates}),
        Mutant("one key for all leaves", leaves, patches={
            f"{PRIVACY}.feedback.add_noise": one_key_for_all_leaves}),
        Mutant("padding of microbatches that counts", leaves,
               patches=COUNTED_PADDING),
        Mutant("a record that is no number is not dropped",
               of_leaves("four others", full, float("nan"), (10.0,) * 4, score=_less_of_the_others), patches=KEPT_NAN),
        Mutant("one residual for all units (local)",
               Game("two steps", mechanism("local", "full batch", 1.5), scales=(10.0, 10.0), others=1e-3),
               patches={f"{PRIVACY}.feedback.unit_lengths": one_residual}),
        Mutant("noise of float32 normals", Game("low bits", mechanism("none", "full batch", 1.0),
                                                score=not_a_float32_normal),
               patches={f"{PRIVACY}.feedback.add_noise": float32_noise}),
        Mutant("float32 sums", SumGame("a full-batch sum", 1.0), patches={
            f"{PRIVACY}.row_sums.sum_by_group": float32_sums}),
        Mutant("a convolution's norm halved (ghost)", of_convolution("convolution", full),
               patches={f"{PRIVACY}.ghost._convolution": halved_norm_of_convolutions}),
    ]  # fmt: skip
    if jax.device_count() > 1:
        mesh = of_leaves("a mesh", full, method="vmap", devices=devices_at_hand())
        found += [
            Mutant("mesh: a share of the noise from each device", mesh, patches={
                f"{PRIVACY}.feedback.add_noise": shares_of_the_noise}),
            Mutant("mesh: gradients summed before the clip", mesh, patches=SUMMED_BEFORE_THE_CLIP),
        ]  # fmt: skip
    return found
