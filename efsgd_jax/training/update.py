"""The training step as one compiled program."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efsgd_jax.synthesizers.base import Synthesizer
from efsgd_jax.training.compilation import compiler_options

PyTree = Any


def make_update(synthesizer: Synthesizer, mesh: Mesh | None = None, steps: int = 1) -> Callable[..., Any]:
    """``update(state, sampling_key, data) -> (state, metrics)``, jitted: draws batches and takes ``steps`` steps.

    The batch of step t depends on ``sampling_key`` and t, so that a resumed run draws what it drew before. With a mesh
    everything that goes in and comes out is the same on all of its devices. Metrics are float32 ``[steps]``.
    """
    everywhere = {"out_shardings": NamedSharding(mesh, PartitionSpec())} if mesh else {}

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=compiler_options(), **everywhere)
    def update(state: PyTree, key: jax.Array, data: PyTree) -> tuple[PyTree, dict]:
        def one(state: PyTree, _: None) -> tuple[PyTree, dict]:
            return synthesizer.step(state, synthesizer.batch(key, state.step, data))

        if steps == 1:
            state, metrics = one(state, None)
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(one, state, length=steps)

    return update


def dispatches(first: int, last: int, boundaries: Sequence[int]) -> Iterator[int]:
    """How many steps to take at once, from ``first`` to ``last``, so that each multiple of a boundary is an end.

    On an accelerator, where a step can be shorter than its dispatch. On a CPU one: XLA compiles convolutions in
    loops to slower ones there.
    """
    step = first
    while step < last:
        ends = [last, *((step // every + 1) * every for every in boundaries)]
        count = 1 if jax.default_backend() == "cpu" else min(ends) - step
        yield count
        step += count
