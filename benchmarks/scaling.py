"""One step on 1, 2, 4 and 8 devices, by the compiler's account: operations of each device, and bytes that travel.

    python benchmarks/scaling.py --out=benchmarks/results/scaling.json

The devices are virtual and share this machine's cores, so that seconds would say nothing; the compiled program says
what each of them computes and what they exchange. *Private update*: the clipped gradient of a Poisson batch, feedback,
noise and Adam, of the discriminator. *Whole step*: `efsgd_gan`'s, with generated images and the generator's own step.
Strong scaling keeps the batch, weak scaling keeps it per device. The ideal is one all-reduce of the parameters.
"""

import argparse
import os
import sys
from typing import Any

DEVICES = (1, 2, 4, 8)
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(DEVICES)}"

import jax  # noqa: E402  (the flag above is read at import)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from clipping import L2_NORM_CLIP, Problem  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402
from provenance import provenance  # noqa: E402
from timing import write_record  # noqa: E402

from efsgd_jax.privacy import (  # noqa: E402
    DpSgdMechanism,
    PlannedPhase,
    clipped_grad,
    error_feedback_aggregate,
    poisson_batch,
)
from efsgd_jax.synthesizers.base import Record  # noqa: E402
from efsgd_jax.synthesizers.efsgd_gan.method import phases  # noqa: E402
from efsgd_jax.synthesizers.efsgd_gan.options import Hyperparameters  # noqa: E402
from efsgd_jax.training.step_cost import exchanged_bytes  # noqa: E402
from efsgd_jax.training.update import Inputs, take_step  # noqa: E402

SPEC_N = 60_000


def mesh_of(devices: int) -> Mesh | None:
    return Mesh(np.array(jax.devices()[:devices]), ("data",)) if devices > 1 else None


def account(f: Any, mesh: Mesh | None, *arguments: Any) -> dict[str, Any]:
    everywhere = {"out_shardings": NamedSharding(mesh, PartitionSpec())} if mesh else {}
    if mesh:
        arguments = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, PartitionSpec())), arguments
        )
    program = jax.jit(f, **everywhere).lower(*arguments).compile()
    cost = program.cost_analysis()
    return {"flops": cost["flops"], "travelling": exchanged_bytes(program.as_text())}


def private_update(batch_size: int, mesh: Mesh | None) -> dict[str, Any]:
    problem = Problem(8, 32, 1)
    # The batch at once: the compiler counts what is in a loop as if it ran once.
    gradient = clipped_grad(problem.loss, L2_NORM_CLIP, microbatch_size=None, mesh=mesh)
    tx = optax.chain(
        error_feedback_aggregate(L2_NORM_CLIP, 1.0, jax.random.key(0), expected_batch_size=batch_size),
        optax.adam(1e-3),
    )

    def update(params: Any, state: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> Any:
        rows, mask = poisson_batch(key, SPEC_N, batch_size / SPEC_N, batch_size)
        batch = images[rows].astype(jnp.float32) / 127.5 - 1, labels[rows]
        clipped = gradient(params, batch, jax.random.split(key, batch_size), mask)
        updates, state = tx.update(clipped, state, params)
        return optax.apply_updates(params, updates), state

    params = problem.params
    images = jax.ShapeDtypeStruct((SPEC_N, 28, 28, 1), jnp.uint8)
    labels = jax.ShapeDtypeStruct((SPEC_N,), jnp.int32)
    state, key = jax.eval_shape(tx.init, params), jax.eval_shape(lambda: jax.random.key(0))
    result = account(update, mesh, params, state, key, images, labels)
    return {**result, "parameter_bytes": sum(4 * x.size for x in jax.tree.leaves(params))}


def whole_step(batch_size: int, mesh: Mesh | None) -> dict[str, Any]:
    from clipping import SPEC

    clip = {"discriminator": 0.7, "encoder": 0.5, "generator": 1.0}
    mechanism = DpSgdMechanism(SPEC_N, batch_size / SPEC_N, batch_size, 1.0, clip)
    hp = Hyperparameters(
        latent=16, max_width=32, features=64, generated_batch_size=batch_size // 4, microbatch_size=None
    )
    (phase,) = phases(SPEC, hp, [PlannedPhase("training", mechanism, 1)], mesh)
    images = jax.ShapeDtypeStruct((SPEC_N, 28, 28, 1), jnp.uint8)
    labels = jax.ShapeDtypeStruct((SPEC_N,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: phase.init(key, {}), key)
    inputs = Inputs(key, key, Record(images, labels), {})
    result = account(lambda state, inputs: take_step(phase, state, inputs, jnp.int32(0), mesh), mesh, state, inputs)
    return {**result, "parameter_bytes": sum(4 * x.size for x in jax.tree.leaves(state.params))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=512)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    record: dict[str, Any] = {**provenance(), "batch_size": args.batch_size, "runs": []}
    print("| | devices | B | operations per device, relative | ideal | all-reduced, of the parameters | other bytes |")
    print("|---|---|---|---|---|---|---|")
    for title, measure in (("private update", private_update), ("whole step", whole_step)):
        for scaling in ("strong", "weak"):
            one = None
            for devices in DEVICES:
                batch_size = args.batch_size * (devices if scaling == "weak" else 1)
                result = measure(batch_size, mesh_of(devices))
                one = one or result["flops"]
                moved = dict(result["travelling"])
                reduced = moved.pop("all-reduce", 0)
                ideal = 1.0 if scaling == "weak" else 1 / devices
                cells = [f"{title}, {scaling}", devices, batch_size, f"{result['flops'] / one:.3f}", f"{ideal:.3f}"]
                cells += [f"{reduced / result['parameter_bytes']:.3f}", sum(moved.values())]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)
                record["runs"].append(
                    {"what": title, "scaling": scaling, "devices": devices, "B": batch_size, **result}
                )
                write_record(args.out, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
