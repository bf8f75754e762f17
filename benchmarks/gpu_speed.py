"""What a clipped gradient costs on an accelerator, beside a plain one and the peers that are installed.

    python benchmarks/gpu_speed.py --seconds=300 --out=gpu_results/speed.json

For the critic of `efsgd_gan`, the denoiser of `private_diffusion` and a vision transformer, in float32 and bfloat16, by
batch size: milliseconds per call, seconds of compilation, and the share of this machine's peak, which is that of a
product of two large matrices. All gradients are of the same weights and batch; rounds are interleaved. Then
critics of 100 shards, stacked and one by one, and steps of the papers' full configs. Rows are written as they come; the
same command goes on where it was. No row is begun after ``--seconds``. --tiny tries the flow on any machine.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import members
import numpy as np
import optax
from baselines import EXAMPLES, phase_by, random_records
from clipping import SPEC, Problem, of_torch
from first_step import state_and_inputs
from provenance import provenance
from timing import in_turn, write_record
from tokens import CLASSES, SIDE, VisionTransformer

from efsgd_jax.cli.parser import read_config
from efsgd_jax.privacy import clipped_grad
from efsgd_jax.synthesizers.efsgd_mixture.training import Start
from efsgd_jax.synthesizers.private_diffusion.method import ResidualModel
from efsgd_jax.synthesizers.private_diffusion.options import Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters as Critics
from efsgd_jax.synthesizers.sanitized_gan.shard import make_shard
from efsgd_jax.training.setup import make_ledger
from efsgd_jax.training.update import make_update

L2_NORM_CLIP = 0.5
# Norms and sums of the same gradients, which an accelerator forms from products of rounded factors.
TOLERANCE = {"float32": 2e-3, "bfloat16": 5e-2}
PAPERS = ("configs/efsgd_fmnist.py", "configs/sanitized_fmnist.py", "configs/diffusion_fmnist.py")


class Network(NamedTuple):
    """``loss(params, example, key) -> scalar`` of one example, its parameters, and a batch of random examples."""

    loss: Callable[..., jax.Array]
    params: Any
    batch: Any


def critic(rows: int, dtype: str, tiny: bool) -> Network:
    problem = Problem(8, 16 if tiny else 32, rows)

    def loss(params: Any, example: Any, key: jax.Array) -> jax.Array:
        image, label = example
        return problem.sum_of_losses(params, image.astype(dtype)[None], label[None])

    return Network(loss, problem.params, (problem.images, problem.labels))


def denoiser(rows: int, dtype: str, tiny: bool) -> Network:
    sizes: dict[str, Any] = {"width": 8, "blocks": 1} if tiny else {"width": 128, "blocks": 4}
    hp = Hyperparameters(draws=4, compute_dtype=dtype, directions=64, **sizes)
    model, rng = ResidualModel(SPEC, hp), np.random.default_rng(0)

    def random(*shape: int) -> jax.Array:
        return jnp.asarray(rng.uniform(0, 1, (rows, *shape)), jnp.float32)

    def loss(params: Any, example: Any, key: jax.Array) -> jax.Array:
        blurred, code, image, label = example
        return model.loss(params, Start(blurred[None], code[None]), image, label, key)

    labels = jnp.asarray(rng.integers(0, SPEC.num_classes, rows), jnp.int32)
    return Network(
        loss, jax.jit(model.init)(jax.random.key(0)), (random(*SPEC.shape), random(64), random(*SPEC.shape), labels)
    )


def transformer(rows: int, dtype: str, tiny: bool) -> Network:
    module, rng = VisionTransformer(64 if tiny else 192, 1 if tiny else 4), np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((rows, SIDE, SIDE, 3)), jnp.float32)

    def loss(params: Any, example: Any, key: jax.Array) -> jax.Array:
        image, label = example
        logits = module.apply(params, image.astype(dtype)[None])
        return optax.softmax_cross_entropy_with_integer_labels(logits, label[None])[0]

    labels = jnp.asarray(rng.integers(0, CLASSES, rows), jnp.int32)
    return Network(loss, jax.jit(module.init)(jax.random.key(0), x[:1]), (x, labels))


NETWORKS = {"critic": critic, "denoiser": denoiser, "transformer": transformer}


def compute_in(dtype: str, loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """``loss`` with parameters of this dtype, and its value in float32; gradients stay those of float32 parameters."""
    return lambda params, example, key: loss(jax.tree.map(lambda p: p.astype(dtype), params), example, key).astype(
        jnp.float32
    )


def programs(network: Network, dtype: str, rows: int) -> dict[str, Callable[..., Any]]:
    """Functions of parameters, batch and keys; each returns one summed gradient."""
    loss = compute_in(dtype, network.loss)

    def total(params: Any, batch: Any, keys: jax.Array) -> jax.Array:
        return jnp.sum(jax.vmap(loss, (None, 0, 0))(params, batch, keys))

    def clipped(method: Any) -> Callable[..., Any]:
        f = clipped_grad(lambda *x: (loss(*x), None), L2_NORM_CLIP, method=method)
        return lambda *x: f(*x).clipped_sum

    found = {"plain": jax.grad(total), "ghost": clipped("ghost"), "vmap": clipped("vmap")}
    try:
        from jax_privacy import clipping
    except ImportError:
        return found

    def alone(params: Any, batch: Any, data: jax.Array) -> jax.Array:  # it does not take arrays of PRNG keys
        return total(params, batch, jax.random.wrap_key_data(data))

    size = min(256, rows)
    theirs = clipping.clipped_grad(alone, l2_clip_norm=L2_NORM_CLIP, batch_argnums=(1, 2), microbatch_size=size)
    return {**found, "jax-privacy": lambda *x: theirs(*x[:2], jax.random.key_data(x[2]))}


def one_row(kind: str, dtype: str, rows: int, rounds: int, tiny: bool) -> dict[str, Any]:
    """Times of all programs for one network, dtype and batch size; a program that fails is named with its error."""
    network = NETWORKS[kind](rows, dtype, tiny)
    arguments = network.params, network.batch, jax.random.split(jax.random.key(1), rows)
    run: dict[str, Callable[[], Any]] = {}
    seconds, operations, failed, difference = {}, 0.0, {}, {}
    found = {}
    for name, f in programs(network, dtype, rows).items():
        try:
            start = time.perf_counter()
            lowered = jax.jit(f).lower(*arguments)
            compiled = lowered.compile()
            seconds[name] = time.perf_counter() - start
            if name == "plain":
                operations = float((lowered.cost_analysis() or {}).get("flops", 0.0))
            found[name] = jax.block_until_ready(compiled(*arguments))
            run[name] = functools.partial(lambda c: jax.block_until_ready(c(*arguments)), compiled)
        except Exception as error:  # what does not fit into memory is a result, and the others count
            failed[name] = _words(error)
    if kind == "critic" and dtype == "float32":
        problem = Problem(8, 16 if tiny else 32, rows)
        for name, f in of_torch(problem).items():
            try:
                found[name], run[name] = f(), of_torch(problem, convert=False)[name]
            except Exception as error:
                failed[name] = _words(error)
    for name, gradient in found.items():
        if "plain" not in name and "ghost" in found:
            off = optax.tree.sub(gradient, found["ghost"])
            difference[name] = float(optax.tree.norm(off) / optax.tree.norm(found["ghost"]))
    found.clear()
    return {
        "network": kind, "dtype": dtype, "rows": rows, "operations": operations,
        "parameters": sum(p.size for p in jax.tree.leaves(network.params)), "compile_seconds": seconds,
        "difference": difference, "agree": all(x <= TOLERANCE[dtype] for x in difference.values()), "failed": failed,
        "ms": in_turn(run, rounds),
    }  # fmt: skip


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def peak(side: int, rounds: int) -> dict[str, float]:
    """Operations a second of a product of two square matrices, by dtype."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        x = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
        f = functools.partial(jax.jit(jnp.matmul), x, x)
        times = in_turn({"product": functools.partial(lambda f: jax.block_until_ready(f()), f)}, rounds)["product"]
        found[dtype] = 2.0 * side**3 / (statistics.median(times) / 1e3)
    return found


def steps_of(path: str, steps: int, tiny: bool) -> dict[str, Any]:
    """Steps of the last phase of a config, all in one program, as accelerators take them."""
    config = read_config(path, ["train.expected_batch_size=64"] if tiny and "sanitized" not in path else [])
    plan = make_ledger(config, EXAMPLES).mechanism.phases
    phase, released = phase_by("ghost", config.method.get("microbatch_size"), config, plan)
    state, inputs = state_and_inputs(phase, random_records(), released)
    start = time.perf_counter()
    update = make_update(phase, steps=steps).lower(state, jnp.int32(0), inputs).compile()
    compiled = time.perf_counter()
    jax.block_until_ready(update(state, jnp.int32(0), inputs))
    return {
        "config": path, "steps": steps, "compile_seconds": compiled - start, "seconds": time.perf_counter() - compiled
    }  # fmt: skip


def shards(count: int, repeats: int) -> dict[str, Any]:
    """Milliseconds for each of ``count`` critics, in one program and one by one."""
    shard = make_shard(
        SPEC, Critics(critic_width=16, critic_batch_size=16, critic_steps=1), lambda *_: jnp.zeros(()), 0
    )
    times, difference = members.compare(shard, count, repeats)
    return {"members": count, "difference": difference, "ms_per_member": times}


def work(tiny: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name and function of each row, the most wanted first."""
    rounds = 1 if tiny else 5
    yield "peak", lambda: {"operations_per_second": peak(256 if tiny else 8192, rounds)}
    sizes = [16] if tiny else [512, 4096, 16_384]
    for rows in sizes:
        for kind in NETWORKS:
            for dtype in ("float32", "bfloat16"):
                # More rows of the larger networks would take the time of all others.
                if kind == "critic" or rows <= 4096:
                    name = f"{kind} {dtype} {rows}"
                    yield name, functools.partial(one_row, kind, dtype, rows, rounds, tiny)
        if rows == sizes[0]:
            yield "members", functools.partial(shards, 3 if tiny else 100, rounds)
    for path in PAPERS[:1] if tiny else PAPERS:
        yield path, functools.partial(steps_of, path, 2 if tiny else 200, tiny)


def to_table(rows: dict[str, dict[str, Any]]) -> str:
    highest = rows.get("peak", {}).get("operations_per_second", {})
    lines = [
        "| network | dtype | rows | program | ms | of plain | of peak | s to compile |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for title, row in rows.items():
        notes += [
            f"{title}, {name}: {words}"
            for name, words in {"": row.get("error"), **row.get("failed", {})}.items()
            if words
        ]
        notes += [f"{title}: gradients differ: {row['difference']}"] if not row.get("agree", True) else []
        for name, values in row.get("ms", {}).items():
            ms = statistics.median(values)
            share = row["operations"] / (ms / 1e3) / highest[row["dtype"]] if row["dtype"] in highest else 0.0
            times = f"{ms / statistics.median(row['ms']['plain']):.2f}" if "plain" in row["ms"] else ""
            compiled = f"{row['compile_seconds'][name]:.1f}" if name in row["compile_seconds"] else ""
            lines.append(
                f"| {row['network']} | {row['dtype']} | {row['rows']:,} | {name} | {ms:.2f} | {times} | "
                f"{100 * share:.1f}% | {compiled} |"
            )
    return "\n".join([*lines, "", *notes])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=400.0, help="no row is begun later than this")
    parser.add_argument("--tiny", action="store_true", help="try the flow with tiny sizes")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out, begin = Path(args.out), time.monotonic()
    jax.config.update("jax_enable_compilation_cache", False)  # seconds of compilation are measured
    record: dict[str, Any] = {**provenance(), "tiny": args.tiny, "rows": {}}
    if out.is_file():  # rows of the same program on the same machine are kept, but for those that failed
        before = json.loads(out.read_text())
        if all(before.get(key) == record[key] for key in ("tiny", "machine", "jax", "commit")):
            record["rows"] = {name: row for name, row in before["rows"].items() if "error" not in row}
    for name, measure in work(args.tiny):
        if name in record["rows"] or time.monotonic() - begin > args.seconds:
            continue
        try:
            record["rows"][name] = measure()
        except Exception as error:
            record["rows"][name] = {"error": _words(error)}
        print(
            name,
            "failed" if "error" in record["rows"][name] else "done",
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        )
        write_record(args.out, record)
    print(to_table(record["rows"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
