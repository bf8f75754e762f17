"""What a step of DP-SGD costs on a mesh of devices that need not exist, by the compiler's account."""

import dataclasses
import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.errors import UserError
from efsgd_jax.privacy.dp_sgd import DpSgdMechanism
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.base import Phase, Record
from efsgd_jax.training.layout import layout
from efsgd_jax.training.update import Inputs, make_update

PyTree = Any
BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1, "f64": 8, "u8": 1}
# XLA writes "name = shape op(...)"; the shape of several results in one is a tuple.
COLLECTIVE = re.compile(r" = (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all)(?:-start)?\(")


class StepCost(NamedTuple):
    """The cost of one step for each device.

    Attributes:
      devices: number of devices.
      rows: rows of the batch on one device, including padding.
      operations: floating-point operations.
      exchanged: bytes of the results of collective operations, by their kind.
      held: bytes of the state, or of the device's part of it, and of the records.
      working: bytes of temporary memory, in microbatches as the config sets them.
    """

    devices: int
    rows: int
    operations: float
    exchanged: dict[str, int]
    held: int
    working: int


def exchanged_bytes(program: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective operation in the text of a compiled program."""
    total: dict[str, int] = {}
    for shapes, kind in COLLECTIVE.findall(program):
        for dtype, sides in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            if dtype in BYTES:
                size = BYTES[dtype] * math.prod(int(s) for s in sides.split(",") if s)
                total[kind] = total.get(kind, 0) + size
    return total


def step_cost(config: ConfigDict, spec: ImageSpec, dataset_size: int, devices: int) -> StepCost:
    """The cost of one step of the last phase of ``config``, which must be DP-SGD, on the first ``devices`` devices.

    Devices may be virtual ones of a CPU (``--xla_force_host_platform_device_count``); nothing is executed, and no
    image is read.

    Args:
      config: a validated configuration without public data.
      spec: shape of the images and number of classes.
      dataset_size: N, the number of training images.
      devices: number of devices, at most those that JAX has.

    Raises:
      UserError: the method has no phase of DP-SGD, or does not divide its batches among devices.
    """
    method = method_named(config.method.name)
    if devices > 1 and not method.shares_batches:
        raise UserError(f"config.method.name {config.method.name} trains on one device; ask for --devices=1")
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",)) if devices > 1 else None
    hyperparameters = method.read(config.method.to_dict())
    # The noise does not change the cost.
    plan = [
        p._replace(mechanism=p.mechanism.with_noise(1.0)) if p.mechanism else p
        for p in method.plan(config, dataset_size)
    ]
    if not isinstance(plan[-1].mechanism, DpSgdMechanism):
        raise UserError(
            f"config.method.name {config.method.name} has no steps of DP-SGD, whose cost grows with a batch"
        )
    whole = hyperparameters
    if hasattr(hyperparameters, "microbatch_size"):  # the compiler counts what is in a loop as if it ran once
        whole = dataclasses.replace(hyperparameters, microbatch_size=None)
    as_run, counted = (
        _compiled(method.phases(spec, h, plan, mesh), spec, dataset_size, mesh, config.train.divide_above)
        for h in (hyperparameters, whole)
    )
    memory: Any = as_run.memory_analysis()
    cost: Any = counted.cost_analysis()
    return StepCost(
        devices=devices,
        rows=-(-plan[-1].mechanism.capacity // devices),
        operations=cost["flops"],
        exchanged=exchanged_bytes(counted.as_text()),
        held=memory.argument_size_in_bytes,
        working=memory.temp_size_in_bytes,
    )


def _compiled(phases: Any, spec: ImageSpec, dataset_size: int, mesh: Mesh | None, divide_above: int) -> Any:
    """One step of the last phase as a program, from shapes alone."""
    *before, phase = phases
    key = jax.eval_shape(lambda: jax.random.key(0))
    released: dict[str, PyTree] = {}
    for earlier in before:
        state = jax.eval_shape(earlier.init, key, released)
        released = {**released, earlier.name: jax.eval_shape(earlier.release, state)}
    records = _records(phase, spec, dataset_size, released)
    state = jax.eval_shape(phase.init, key, released)
    inputs: Any = Inputs(key, key, records, released)
    first = jax.ShapeDtypeStruct((), jnp.int32)
    placed = layout(phase, state, mesh, divide_above)
    if mesh:
        everywhere = NamedSharding(mesh, PartitionSpec())
        state = jax.tree.map(_on, state, placed)
        first, inputs = jax.tree.map(lambda x: _on(x, everywhere), (first, inputs))
    return make_update(phase, mesh, placed=placed).lower(state, first, inputs).compile()


def _on(x: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _records(phase: Phase, spec: ImageSpec, dataset_size: int, released: dict[str, PyTree]) -> PyTree:
    """The records as the mechanism arranges them; shapes and dtypes."""
    shapes: list[Any] = [
        jax.ShapeDtypeStruct((dataset_size, *spec.shape), jnp.uint8),
        jax.ShapeDtypeStruct((dataset_size,), jnp.int32),
    ]
    rows: Any = Record(*shapes)
    view = phase.view
    if view is not None:
        rows = jax.eval_shape(lambda rows, released: jax.vmap(lambda r: view(r, released))(rows), rows, released)
    assert phase.plan.mechanism is not None
    return jax.eval_shape(phase.plan.mechanism.arrange, jax.random.key(0), rows)
