"""Clipped gradients of a vision transformer against its plain gradient: ms per call on this machine.

    python benchmarks/tokens.py --out=benchmarks/results/tokens.json

Pictures of 32x32 in patches of 4x4 and a class token are 65 tokens of width 192. *Plain* is the gradient of the batch's
sum of losses, whole and in microbatches, which on a CPU is quicker for cache's sake. Rounds are interleaved, and ratios
are of the same round. That clipped sums are equal is checked first. The machine must be idle.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from provenance import provenance
from timing import fastest, in_turn, ratios, spread, write_record

from efsgd_jax.privacy import clipped_grad
from efsgd_jax.training.compilation import compiler_options

CLASSES, SIDE, PATCH = 10, 32, 4
TOLERANCE = 1e-5


class Block(nn.Module):
    """Pre-normalised attention and perceptron (arXiv 2010.11929)."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=self.heads)(y, y)
        y = nn.Dense(4 * width)(nn.LayerNorm()(x))
        return x + nn.Dense(width)(nn.gelu(y))


class VisionTransformer(nn.Module):
    """Logits of pictures ``[B, 32, 32, 3]``."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.Conv(self.width, (PATCH, PATCH), strides=PATCH, padding="VALID")(images)
        x = x.reshape(x.shape[0], -1, self.width)
        first = self.param("class_token", nn.initializers.normal(0.02), (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, self.width)), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        for _ in range(self.depth):
            x = Block(self.width // 64)(x)
        return nn.Dense(CLASSES)(nn.LayerNorm()(x)[:, 0])


def programs(width: int, depth: int, batch_size: int, sizes: list[int]) -> tuple[dict[str, Callable[[], Any]], int]:
    """What is timed, and the number of parameters."""
    module = VisionTransformer(width, depth)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch_size, SIDE, SIDE, 3)), jnp.float32)
    y = jnp.asarray(rng.integers(0, CLASSES, batch_size), jnp.int32)
    params = jax.jit(module.init)(jax.random.key(0), x[:1])
    keys = jax.random.split(jax.random.key(1), batch_size)

    def total(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(optax.softmax_cross_entropy_with_integer_labels(module.apply(params, x), y))

    def plain(size: int) -> Callable[..., Any]:
        def f(params: Any, x: jax.Array, y: jax.Array) -> Any:
            def add(sums: Any, part: Any) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, sums, jax.grad(total)(params, *part)), None

            parts = jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), (x, y))
            return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)[0]

        return f

    def clipped(method: Any, size: int) -> Callable[..., Any]:
        f = clipped_grad(
            lambda p, example, key: (total(p, example[0][None], example[1][None]), None),
            0.5,
            method=method,
            microbatch_size=size,
        )
        return lambda params, x, y: f(params, (x, y), keys).clipped_sum

    functions = {"plain": jax.grad(total)}
    for size in sizes:
        functions[f"plain, microbatches of {size}"] = plain(size)
    for method in ("ghost", "vmap"):
        functions[method] = clipped(method, batch_size)
        for size in sizes:
            functions[f"{method}, microbatches of {size}"] = clipped(method, size)

    def ready(f: Callable[..., Any]) -> Callable[[], Any]:
        compiled = jax.jit(f, compiler_options=compiler_options())
        return lambda: jax.block_until_ready(compiled(params, x, y))

    return {name: ready(f) for name, f in functions.items()}, sum(p.size for p in jax.tree.leaves(params))


def check_equal(run: dict[str, Callable[[], Any]]) -> float:
    """The largest relative difference among the plain gradients, and among the clipped ones."""
    worst = 0.0
    for kinds in (("plain",), ("vmap", "ghost")):
        names = [name for name in run if name.startswith(kinds)]
        want = run[names[-1]]()
        for name in names:
            worst = max(worst, float(optax.tree.norm(optax.tree.sub(run[name](), want)) / optax.tree.norm(want)))
    assert worst <= TOLERANCE, worst
    return worst


def to_table(times: dict[str, list[float]]) -> str:
    best = fastest(times, [name for name in times if name.startswith("plain")])
    lines = ["| | ms | of plain | of plain in its fastest form |", "|---|---|---|---|"]
    for name, values in times.items():
        cells = [spread(ratios(values, times[other])) for other in ("plain", best)]
        lines.append(f"| {name} | {spread(values, 0)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--microbatch_sizes", default="8,16", help="separated by commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    sizes = [int(size) for size in args.microbatch_sizes.split(",")]
    run, count = programs(args.width, args.depth, args.batch_size, sizes)
    error = check_equal(run)
    print(f"{count} parameters; largest relative difference between gradients: {error:.1e}")
    times = in_turn(run, args.rounds)
    print(to_table(times))
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    write_record(args.out, {**provenance(), "sizes": settings, "parameters": count, "error": error, "ms": times})
    return 0


if __name__ == "__main__":
    sys.exit(main())
