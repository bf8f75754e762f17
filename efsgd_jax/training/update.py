"""The steps of a phase as one compiled program."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efsgd_jax.privacy.access import Access, UndeclaredReleaseError
from efsgd_jax.synthesizers.base import Phase, Released
from efsgd_jax.training.compilation import compiler_options

PyTree = Any


class PhaseKeys(NamedTuple):
    """Secret keys of one phase: of its first state, of what the mechanism arranges once, of accesses and of steps."""

    init: jax.Array
    arrange: jax.Array
    access: jax.Array
    step: jax.Array
    warm_up: jax.Array


def keys_of_phase(root_key: jax.Array, index: int) -> PhaseKeys:
    """The keys of a run's phase ``index``; the same in a run that is continued."""
    return PhaseKeys(*jax.random.split(jax.random.fold_in(root_key, index), len(PhaseKeys._fields)))


class Inputs(NamedTuple):
    """What the steps of a phase read beside their state.

    Attributes:
      access_key: of all accesses; that of step t depends on it and t, so that a continued run draws what it drew.
      step_key: of all steps.
      records: as the mechanism arranged them; None for post-processing.
      released: by earlier phases.
    """

    access_key: jax.Array
    step_key: jax.Array
    records: PyTree
    released: Released


def open_access(phase: Phase, inputs: Inputs, step: jax.Array, mesh: Mesh | None) -> Access:
    """The access of step ``step``, within a compiled program."""
    mechanism = phase.plan.mechanism
    if mechanism is None:
        return Access(released=inputs.released)
    key = jax.random.fold_in(inputs.access_key, step)
    return mechanism.open(inputs.records, key, step, mesh=mesh, released=inputs.released)


def take_step(
    phase: Phase, state: PyTree, inputs: Inputs, step: jax.Array, mesh: Mesh | None = None
) -> tuple[PyTree, dict[str, jax.Array]]:
    """One step of a phase: its next state, and its private metrics."""
    access = open_access(phase, inputs, step, mesh)
    state, metrics = phase.step(state, access, jax.random.fold_in(inputs.step_key, step))
    return state, {**metrics, **access.private_metrics()}


def make_update(phase: Phase, mesh: Mesh | None = None, steps: int = 1) -> Any:
    """``update(state, first, inputs) -> (state, metrics)``, jitted: takes ``steps`` steps from step ``first`` on.

    With a mesh everything that goes in and comes out is the same on all of its devices. Metrics are ``[steps]``.
    """

    def update(state: PyTree, first: jax.Array, inputs: Inputs) -> tuple[PyTree, dict[str, jax.Array]]:
        def one(state: PyTree, step: jax.Array) -> tuple[PyTree, dict[str, jax.Array]]:
            return take_step(phase, state, inputs, step, mesh)

        if steps == 1:
            state, metrics = one(state, first)
            return state, jax.tree.map(lambda x: jnp.asarray(x)[None], metrics)
        return jax.lax.scan(one, state, first + jnp.arange(steps))

    return _jitted(update, mesh)


def make_warm_up(phase: Phase, mesh: Mesh | None = None) -> Any:
    """``warm_up(state, step, inputs) -> state``, jitted.

    Raises:
      UndeclaredReleaseError: it releases something.
    """

    def warm_up(state: PyTree, step: jax.Array, inputs: Inputs) -> PyTree:
        assert phase.warm_up is not None
        access = open_access(phase, inputs, step, mesh)
        state = phase.warm_up(state, access, jax.random.fold_in(inputs.step_key, step))
        if access.recorded:
            raise UndeclaredReleaseError(f"the warm-up of {phase.name} releases {access.recorded[0].what}; it must not")
        return state

    return _jitted(warm_up, mesh)


def _jitted(f: Any, mesh: Mesh | None) -> Any:
    everywhere: dict[str, Any] = {"out_shardings": NamedSharding(mesh, PartitionSpec())} if mesh else {}
    return jax.jit(f, donate_argnums=0, compiler_options=compiler_options(), **everywhere)


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
