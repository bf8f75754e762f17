"""K shards' critics in one program against a Python loop over K separate ones: ms of one turn per member.

    python benchmarks/members.py --members=100 --out=benchmarks/results/members.json

All of them call the same function of one member, ``Shard.train`` with critic steps only, compiled with its state
donated: ``stack`` by ``over_members`` as training does, ``vmap`` with ``batched=True``, ``loop`` once per member from
Python. Results are compared before anything is timed; repetitions are interleaved. The defaults take about 2 minutes on
2 CPU cores.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from provenance import provenance
from timing import in_turn, ratios, spread, write_record

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.synthesizers.sanitized_gan.members import over_members
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters
from efsgd_jax.synthesizers.sanitized_gan.shard import Images, Shard, make_shard
from efsgd_jax.training.compilation import compiler_options

SPEC = ImageSpec(28, 1, 10)
# Accelerators round the factors of products, and the order of sums is another one.
TOLERANCE = {"cpu": 1e-5}
TOLERANCE_ELSEWHERE = 1e-3


def turn(shard: Shard) -> Callable[..., Any]:
    """``turn(member, real, generated, key) -> member``."""
    return lambda member, real, generated, key: shard.train(member, (), real, generated, jnp.int32(0), key)[0]


def random_inputs(members: int, shard: Shard) -> tuple[Images, Images, jax.Array]:
    """Real and generated images and a key for every member."""
    rng = np.random.default_rng(0)

    def images(count: int) -> Images:
        pixels = rng.integers(0, 256, (members, count, *SPEC.shape), np.uint8)
        labels = rng.integers(0, SPEC.num_classes, (members, count))
        return Images(jnp.asarray(pixels / 127.5 - 1.0, jnp.float32), jnp.asarray(labels, jnp.int32))

    return images(shard.examples), images(shard.paired), jax.random.split(jax.random.key(1), members)


def unstack(tree: Any, members: int) -> list[Any]:
    return [jax.block_until_ready(jax.tree.map(lambda x, k=k: x[k], tree)) for k in range(members)]


def in_one_program(one: Callable[..., Any], batched: bool | None) -> Callable[..., Any]:
    def all_members(stack: Any, *inputs: Any) -> Any:
        return over_members(one, stack, *inputs, batched=batched)

    return jax.jit(all_members, donate_argnums=0, compiler_options=compiler_options())


def relative_difference(a: Any, b: Any) -> float:
    """Of the members' whole states, by norm: one number in a million may differ by more, where Adam divides by it."""
    return float(optax.tree.norm(jax.tree.map(jnp.subtract, a, b)) / optax.tree.norm(b))


def compare(shard: Shard, members: int, repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds per member of each repetition, and the relative difference from the loop's result."""
    one = turn(shard)
    inputs = random_inputs(members, shard)
    single = jax.jit(one, donate_argnums=0, compiler_options=compiler_options())
    parts = list(zip(*(unstack(x, members) for x in inputs), strict=True))

    def loop(separate: list[Any]) -> list[Any]:
        return [single(member, *part) for member, part in zip(separate, parts, strict=True)]

    stack, batched = in_one_program(one, None), in_one_program(one, True)
    run: dict[str, Callable[[Any], Any]] = {
        "stack": lambda state: stack(state, *inputs),
        "vmap": lambda state: batched(state, *inputs),
        "loop": loop,
    }
    init = jax.jit(jax.vmap(shard.init))
    keys = jax.random.split(jax.random.key(2), members)
    # Members of their own for each: donated, and updated in place.
    states = {name: init(keys) if name != "loop" else unstack(init(keys), members) for name in run}

    states = {name: run[name](state) for name, state in states.items()}  # compiles
    together = jax.tree.map(lambda *x: jnp.stack(x), *states["loop"])
    differences = {name: relative_difference(states[name], together) for name in ("stack", "vmap")}
    print("difference from the loop's members:", ", ".join(f"{n} {d:.1e}" for n, d in differences.items()))
    assert max(differences.values()) <= TOLERANCE.get(jax.default_backend(), TOLERANCE_ELSEWHERE), differences
    del together

    def again(name: str) -> None:
        states[name] = jax.block_until_ready(run[name](states[name]))

    times = in_turn({name: functools.partial(again, name) for name in run}, repeats)
    return {name: [ms / members for ms in values] for name, values in times.items()}, differences


def to_table(times: dict[str, list[float]]) -> str:
    """Medians (and range) over repetitions; a ratio is of times of the same repetition."""
    lines = ["| | ms per member | times faster than the loop |", "|---|---|---|"]
    for name, values in times.items():
        faster = "1" if name == "loop" else spread(ratios(times["loop"], values))
        lines.append(f"| {name} | {spread(values)} | {faster} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=100, help="K")
    parser.add_argument("--width", type=int, default=16, help="of the critics")
    parser.add_argument("--batch", type=int, default=16, help="real images per critic step")
    parser.add_argument("--critic_steps", type=int, default=1, help="in one turn")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    hp = Hyperparameters(critic_width=args.width, critic_batch_size=args.batch, critic_steps=args.critic_steps)
    shard = make_shard(SPEC, hp, lambda *_: jnp.zeros(()), 0)  # without an encoder nothing is decoded
    times, differences = compare(shard, args.members, args.repeats)
    print(to_table(times))
    sizes = {k: v for k, v in vars(args).items() if k != "out"}
    write_record(args.out, {**provenance(), "sizes": sizes, "difference": differences, "ms_per_member": times})
    return 0


if __name__ == "__main__":
    sys.exit(main())
