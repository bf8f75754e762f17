"""Compiles the steps of a phase: one or several of them as one program."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efsgd_jax.privacy.access import Access, UndeclaredReleaseError
from efsgd_jax.synthesizers.base import Phase, Released
from efsgd_jax.training.compilation import compiler_options

PyTree = Any


class PhaseKeys(NamedTuple):
    """The secret PRNG keys of one phase.

    Attributes:
      init: key of the initial state.
      arrange: key of the mechanism's arrangement of the records, such as their assignment to shards.
      access: key of the accesses of all steps; see ``Inputs``.
      step: key of all steps; see ``Inputs``.
    """

    init: jax.Array
    arrange: jax.Array
    access: jax.Array
    step: jax.Array


def keys_of_phase(root_key: jax.Array, index: int) -> PhaseKeys:
    """The keys of phase number ``index`` of a run. A run that is continued has the same keys."""
    return PhaseKeys(*jax.random.split(jax.random.fold_in(root_key, index), len(PhaseKeys._fields)))


class Inputs(NamedTuple):
    """What the steps of a phase read in addition to their state.

    Attributes:
      access_key: key from which the key of each step's access is derived, as a function of the step's number. A step
        that is repeated after a kill therefore has the same samples and the same noise.
      step_key: key from which the key of each step is derived in the same way.
      records: the records, as the mechanism arranged them; None for post-processing.
      released: what earlier phases released, by their names.
      public: public data, for post-processing; None if there is none.
    """

    access_key: jax.Array
    step_key: jax.Array
    records: PyTree
    released: Released
    public: PyTree = None


def open_access(phase: Phase, inputs: Inputs, step: jax.Array, mesh: Mesh | None) -> Access:
    """Opens the access of step ``step``; called while the step is traced."""
    mechanism = phase.plan.mechanism
    if mechanism is None:
        return Access(released=inputs.released, public=inputs.public)
    key = jax.random.fold_in(inputs.access_key, step)
    return mechanism.open(inputs.records, key, step, mesh=mesh, released=inputs.released)


def take_step(
    phase: Phase, state: PyTree, inputs: Inputs, step: jax.Array, mesh: Mesh | None = None
) -> tuple[PyTree, dict[str, jax.Array]]:
    """Takes one step of a phase; returns the next state and the private metrics, of the step and of its access."""
    access = open_access(phase, inputs, step, mesh)
    state, metrics = phase.step(state, access, jax.random.fold_in(inputs.step_key, step))
    return state, {**metrics, **access.private_metrics()}


def make_update(phase: Phase, mesh: Mesh | None = None, steps: int = 1, placed: PyTree | None = None) -> Any:
    """Returns a compiled ``update(state, first, inputs) -> (state, metrics)``, which takes ``steps`` steps.

    ``first`` is the number of the first of them. Each metric is an array ``[steps]``. With a mesh, every device has a
    copy of inputs and metrics; ``placed`` says where the state is (``layout``), None for a copy on each device.
    """

    def update(state: PyTree, first: jax.Array, inputs: Inputs) -> tuple[PyTree, dict[str, jax.Array]]:
        def one(state: PyTree, step: jax.Array) -> tuple[PyTree, dict[str, jax.Array]]:
            return take_step(phase, state, inputs, step, mesh)

        if steps == 1:
            state, metrics = one(state, first)
            return state, jax.tree.map(lambda x: jnp.asarray(x)[None], metrics)
        return jax.lax.scan(one, state, first + jnp.arange(steps))

    return _jitted(update, mesh, lambda everywhere: (placed or everywhere, everywhere))


def make_warm_up(phase: Phase, mesh: Mesh | None = None, placed: PyTree | None = None) -> Any:
    """Returns a compiled ``warm_up(state, step, inputs) -> state``, which takes one warm-up step.

    Raises:
      UndeclaredReleaseError: the warm-up releases something (raised when the returned function is traced).
    """

    def warm_up(state: PyTree, step: jax.Array, inputs: Inputs) -> PyTree:
        assert phase.warm_up is not None
        access = open_access(phase, inputs, step, mesh)
        state = phase.warm_up(state, access, jax.random.fold_in(inputs.step_key, step))
        if access.recorded:
            raise UndeclaredReleaseError(f"the warm-up of {phase.name} releases {access.recorded[0].what}; it must not")
        return state

    return _jitted(warm_up, mesh, lambda everywhere: placed or everywhere)


def _jitted(f: Any, mesh: Mesh | None, outputs: Callable[[NamedSharding], Any]) -> Any:
    """Compiles ``f``, which overwrites the buffers of its first argument, the state.

    ``outputs(everywhere)`` are the shardings of what it returns, for the sharding ``everywhere`` of copies.
    """
    shardings: dict[str, Any] = {"out_shardings": outputs(NamedSharding(mesh, PartitionSpec()))} if mesh else {}
    return jax.jit(f, donate_argnums=0, compiler_options=compiler_options(), **shardings)


def dispatches(first: int, last: int, boundaries: Sequence[int], *, loops_on_cpu: bool = False) -> Iterator[int]:
    """Yields the number of steps of each program, from step ``first`` to ``last``.

    On accelerators, where dispatching a step can take longer than the step itself, a program takes as many steps as
    possible; every multiple of a boundary is the end of a program. On CPUs each program takes one step, because XLA
    compiles convolutions within loops to slower code there, unless the phase says ``loops_on_cpu``.
    """
    step = first
    while step < last:
        ends = [last, *((step // every + 1) * every for every in boundaries)]
        one_by_one = jax.default_backend() == "cpu" and not loops_on_cpu
        count = 1 if one_by_one else min(ends) - step
        yield count
        step += count
