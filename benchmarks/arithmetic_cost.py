"""What sound arithmetic costs: noise on a lattice beside float32 noise, exact sums beside float sums.

    python benchmarks/arithmetic_cost.py --out=benchmarks/results/arithmetic_cost.json

*noise*: one step's noise on d parameters, by ``noise.add_noise`` and as ``x + std * jax.random.normal``. *sums*: one
release of N rows of 784 numbers, as ``Release`` makes it (clip, round, exact sum, noise) and as float32 would (clip,
matmul, normal noise): sums by class, a second moment, those of 200 components, and a step of the re-ranking
classifier.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from arithmetic_sums import clip_rows
from provenance import provenance
from timing import in_turn, ratios, spread, write_record

from efsgd_jax.privacy import noise
from efsgd_jax.privacy.one_shot import NoiseSupply, Release
from efsgd_jax.privacy.row_sums import FACTOR_BITS, sum_products, whole_rows

CLASSES, SIZE, FEATURES = 10, 784, 442
COMPONENTS, DIRECTIONS = 200, 120
HIGHEST = jax.lax.Precision.HIGHEST


def noises(d: int) -> dict[str, Callable[[], Any]]:
    """Both kinds of noise on ``d`` numbers."""
    x, key, std = jnp.ones(d), jax.random.key(0), 1.3
    exact = jax.jit(lambda k, x: noise.add_noise(k, x, noise.lattice_unit(std, d, 1.0)))
    floats = jax.jit(lambda k, x: x + std * jax.random.normal(k, x.shape))
    return {f"noise on {d:,} numbers": lambda: exact(key, x), f"float noise on {d:,} numbers": lambda: floats(key, x)}


def releases(n: int) -> dict[str, Callable[[], Any]]:
    """Three releases of ``n`` rows, exact and in floats."""
    key = jax.random.key(0)
    x = jax.random.uniform(jax.random.key(1), (n, SIZE))
    labels = jnp.arange(n) % CLASSES
    phi = jax.random.normal(jax.random.key(2), (n, FEATURES)) / FEATURES**0.5
    error = jax.random.uniform(jax.random.key(3), (n, CLASSES))

    def exact_sums(key: jax.Array, x: jax.Array) -> jax.Array:
        release = Release(NoiseSupply(key, CLASSES * SIZE), 10.0, 1.0)
        return release.sums(release.rows(x, 10.0), labels, CLASSES)

    def exact_moment(key: jax.Array, x: jax.Array) -> jax.Array:
        release = Release(NoiseSupply(key, SIZE**2), 36.0, 1.0)
        return release.squares(release.factors(x, 6.0), jnp.zeros(n, jnp.int32), 1)

    def exact_step(key: jax.Array, phi: jax.Array) -> jax.Array:
        release = Release(NoiseSupply(key, FEATURES * CLASSES), 1.0, 1.0)
        rows = whole_rows(phi, 2.0, 2.0 / 2**FACTOR_BITS, FACTOR_BITS)
        return release.noised(sum_products(rows, release.partners(error, rows, 0.5, 2.0)), len(error))

    def float_sums(key: jax.Array, x: jax.Array) -> jax.Array:
        sums = jnp.matmul(jax.nn.one_hot(labels, CLASSES).T, clip_rows(x, 10.0), precision=HIGHEST)
        return sums + 10 * jax.random.normal(key, sums.shape)

    def float_moment(key: jax.Array, x: jax.Array) -> jax.Array:
        rows = clip_rows(x, 6.0)
        moment = jnp.matmul(rows.T, rows, precision=HIGHEST)
        z = jax.random.normal(key, moment.shape)
        return moment + 18 * (z + z.T)

    def float_step(key: jax.Array, phi: jax.Array) -> jax.Array:
        total = jnp.matmul(clip_rows(phi, 2.0).T, clip_rows(error, 0.5), precision=HIGHEST)
        return total + jax.random.normal(key, total.shape)

    component = jnp.arange(n) % COMPONENTS
    z = x[:, :DIRECTIONS]

    def exact_components(key: jax.Array, z: jax.Array) -> jax.Array:
        release = Release(NoiseSupply(key, COMPONENTS * DIRECTIONS**2), 1.0, 1.0)
        return release.squares(release.factors(z, 1.0), component, COMPONENTS)

    def float_components(key: jax.Array, z: jax.Array) -> jax.Array:
        rows, member = clip_rows(z, 1.0), jax.nn.one_hot(component, COMPONENTS)
        squares = jax.lax.map(lambda w: jnp.matmul((rows * w[:, None]).T, rows, precision=HIGHEST), member.T)
        noise = jax.random.normal(key, squares.shape)
        return squares + (noise + jnp.swapaxes(noise, -1, -2)) / 2

    pairs = {
        "sums by class": (exact_sums, float_sums, x),
        "second moment": (exact_moment, float_moment, x),
        "second moments of 200 components": (exact_components, float_components, z),
        "step of the classifier": (exact_step, float_step, phi),
    }
    found = {}
    for name, (exact, floats, data) in pairs.items():
        for kind, function in (("", exact), ("float ", floats)):
            compiled = jax.jit(function)
            found[kind + name] = lambda f=compiled, data=data: f(key, data)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--parameters", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    run: dict[str, Callable[[], Any]] = {}
    for d in args.parameters:
        run |= noises(d)
    run |= releases(args.rows)
    times = in_turn({k: lambda f=f: jax.block_until_ready(f()) for k, f in run.items()}, args.rounds)
    print("| | ms | float32, ms | ratio |\n|---|---|---|---|")
    for name, values in times.items():
        if f"float {name}" in times:
            other = times[f"float {name}"]
            print(f"| {name} | {spread(values, 1)} | {spread(other, 1)} | {spread(ratios(values, other))} |")
    sizes = {k: v for k, v in vars(args).items() if k != "out"}
    write_record(args.out, {**provenance(), "sizes": sizes, "ms": times})
    return 0


if __name__ == "__main__":
    sys.exit(main())
