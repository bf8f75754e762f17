"""How far one white image moves the sums of a full-batch release, over what is claimed: float32 sums, and ours.

    python benchmarks/arithmetic_sums.py --out=benchmarks/results/arithmetic_sums.json

Images are 10 x 10 greys, chosen against the order in which sums are made; one white image, of the clip norm, is added
at the front, in the middle or at the end (``added``), or takes a blank row's place there (``blank``). ``moved`` is the
l2 norm of the difference over the sensitivity that noise is scaled to. About 20 minutes on 2 CPU cores; interrupted,
the same command goes on where it was.
"""

import argparse
import functools
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from grey_levels import level_sets
from provenance import provenance
from recorded_releases import ABSENT, CLIP, PIXELS, RELEASES, Recording
from recorded_releases import record as record_releases
from timing import write_record

from efsgd_jax.privacy.exact_sums import exact_product
from efsgd_jax.privacy.rounding import sum_of_squares
from efsgd_jax.synthesizers.gaussian_mixture.fit import COUNT_LENGTH
from efsgd_jax.training.compilation import compiler_options

CLAIM = CLIP * math.hypot(1.0, COUNT_LENGTH)


def clip_rows(rows: jax.Array, l2_norm_clip: float) -> jax.Array:
    """Each row ``[N, D]`` shortened to norm C at most, up to rounding."""
    norms = jnp.sqrt(sum_of_squares(rows))[:, None]
    return rows * (l2_norm_clip / jnp.maximum(norms, l2_norm_clip))


@functools.partial(jax.jit, static_argnames="classes")
def float_sums(levels: jax.Array, blank: jax.Array, classes: int) -> jax.Array:
    """Class sums and counts as this library made them: clipped rows, one product in float32."""
    x = jnp.broadcast_to(levels[:, None], (len(levels), PIXELS)) / 255.0
    rows = jnp.concatenate([clip_rows(x, CLIP), jnp.full((len(x), 1), COUNT_LENGTH * CLIP)], axis=1)
    member = jax.nn.one_hot(jnp.where(jnp.arange(len(x)) == blank, ABSENT, 0), classes)
    return jnp.matmul(member.T, rows, precision=jax.lax.Precision.HIGHEST)


def float_moves(levels: np.ndarray, without: np.ndarray, position: int, classes: int) -> dict[str, float]:
    more = np.insert(levels, position, 255)
    with_it, blank = (np.float64(float_sums(more, at, classes)) for at in (ABSENT, position))
    moves = {"added": with_it - without, "blank": with_it - blank}
    return {k: float(np.linalg.norm(v)) / CLAIM for k, v in moves.items()}


@functools.cache
def whole_sums(name: str) -> Callable[[Any, Any], tuple[list[np.ndarray], list[float]]]:
    """``f(levels, blank)``: the whole numbers of a release, exactly, and how many standard deviations of noise 1 is."""
    scales: list[float] = []

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def numbers(levels: jax.Array, blank: jax.Array) -> list[Any]:
        Recording.numbers, Recording.blank = [], blank
        x = jnp.broadcast_to(levels[:, None], (len(levels), PIXELS)) / 255.0
        RELEASES[name](x, jnp.zeros(len(levels), jnp.int32))
        scales[:] = [scale for _, scale in Recording.numbers]
        return [number for number, _ in Recording.numbers]

    def exact(levels: Any, blank: Any) -> tuple[list[np.ndarray], list[float]]:
        return [np.int64(h) * 2**24 + np.int64(low) for h, low in numbers(levels, blank)], scales

    return exact


def whole_moves(name: str, levels: np.ndarray, position: int) -> dict[str, float]:
    more = np.insert(levels, position, 255)
    f = whole_sums(name)
    (with_it, scales), (blank, _), (without, _) = f(more, ABSENT), f(more, position), f(levels, ABSENT)

    def moved(other: list[np.ndarray]) -> float:
        return math.hypot(*(s * np.linalg.norm(a - b) for a, b, s in zip(with_it, other, scales, strict=True)))

    return {"added": moved(without), "blank": moved(blank)}


def search(rows: int, sets: int, exact_sets: int) -> dict[str, Any]:
    """The furthest that float sums move, over all level sets; ours, over those that moved them furthest."""
    found: dict[str, dict[str, Any]] = {"float32": {}, "ours": {}}
    candidates = []
    tried = 0
    for tried, (name, levels) in enumerate(level_sets(rows, sets), 1):  # noqa: B007
        furthest = 0.0
        for classes in (1, 10):
            without = np.float64(float_sums(levels, ABSENT, classes))
            for where, position in (("front", 0), ("middle", rows // 2), ("end", rows)):
                for relation, move in float_moves(levels, without, position, classes).items():
                    furthest = max(furthest, move)
                    keep(found["float32"], f"{classes} classes, {relation}", move, f"{name}, {where}")
        candidates.append((furthest, name, levels))
    candidates.sort(key=lambda c: -c[0])
    for release in RELEASES:
        for _, name, levels in candidates[:exact_sets]:
            for where, position in (("front", 0), ("middle", rows // 2), ("end", rows)):
                for relation, move in whole_moves(release, levels, position).items():
                    keep(found["ours"], f"{release}, {relation}", move, f"{name}, {where}")
    return {"level sets": tried, "level sets of all releases": min(tried, exact_sets), **found}


def keep(found: dict[str, Any], key: str, move: float, name: str) -> None:
    if move > found.get(key, {"moved": -1.0})["moved"]:
        found[key] = {"moved": move, "images": name}


def digest(rows: int) -> dict[str, Any]:
    """What must be the same in every process: sums of random rows, as hashes; whether order and devices change them."""
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**12), 2**12 + 1, (rows, 32)).astype(np.float32)
    member = np.eye(10, dtype=np.float32)[rng.integers(0, 10, rows)]
    cases = {"sums of rows": (member, x, 0, 12), "products of rows": (x[:, :16], x, 12, 14)}
    result: dict[str, Any] = {}
    for name, (a, b, bits_a, bits_b) in cases.items():
        whole = jax.jit(lambda a, b, p=bits_a, q=bits_b: exact_product(a, b, p, q))
        floats = jax.jit(lambda a, b: jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST))
        alike, floats_alike = [], []
        first, first_floats = (jax.tree.map(np.asarray, f(a, b)) for f in (whole, floats))
        want = np.int64(a).T @ np.int64(b)
        correct = bool(np.array_equal(np.int64(first.high) * 2**24 + first.low, want))
        for _ in range(5):
            order = rng.permutation(rows)
            alike.append(same(whole(a[order], b[order]), first))
            floats_alike.append(same(floats(a[order], b[order]), first_floats))
        for devices in (1, 2, 8):
            if devices <= len(jax.devices()):
                mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), "rows")
                sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
                sharded = [jax.device_put(v, sharding) for v in (a, b)]
                alike.append(same(whole(*sharded), first))
                floats_alike.append(same(floats(*sharded), first_floats))
        hashed = hashlib.sha256(first.high.tobytes() + first.low.tobytes()).hexdigest()
        result[name] = {
            "sha256": hashed, "equal int64": correct, "alike": sum(alike), "of": len(alike),
            "float32 alike": sum(floats_alike),
        }  # fmt: skip
    return result


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


PROCESSES = {
    "two threads": "",
    "one thread": "--xla_cpu_multi_thread_eigen=false",
    "eight devices": "--xla_force_host_platform_device_count=8",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="60000,160000,240000", help="numbers of images, with commas")
    parser.add_argument("--level_sets", type=int, default=200, help="sets of grey levels to try on float sums")
    parser.add_argument("--exact_sets", type=int, default=3, help="of these, the worst, on each of our releases")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    record_releases()
    if args.part:
        kind, rows = args.part.split(":")
        print(
            json.dumps(digest(int(rows)) if kind == "digest" else search(int(rows), args.level_sets, args.exact_sets))
        )
        return 0

    out = Path(args.out) if args.out else None
    here = provenance()
    record = json.loads(out.read_text()) if out and out.is_file() else {**here, "parts": {}}
    if (record["command"], record["commit"]) != (here["command"], here["commit"]):
        print(f"error: {out} is of commit {record['commit']}, {record['command']}; use another --out", file=sys.stderr)
        return 2
    parts = [(p, f"digest:{n}") for p in PROCESSES for n in (60_000, 240_000)]
    parts += [(p, f"search:{n}") for n in args.rows.split(",") for p in ("two threads", "one thread")]
    for process, part in parts:
        name = f"{part}, {process}"
        if name in record["parts"]:
            continue
        start = time.time()
        options = [f"--level_sets={args.level_sets}", f"--exact_sets={args.exact_sets}", f"--part={part}"]
        command = (["taskset", "-c", "0"] if process == "one thread" else []) + [sys.executable, __file__, *options]
        environment = {**os.environ, "XLA_FLAGS": PROCESSES[process]}
        text = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        record["parts"][name] = {**json.loads(text.splitlines()[-1]), "seconds": round(time.time() - start, 1)}
        print(name, json.dumps(record["parts"][name], indent=1), flush=True)
        write_record(args.out, record)
    found = list(record["parts"].values())
    ours = max(m["moved"] for p in found for m in p.get("ours", {}).values())
    floats = max(m["moved"] for p in found for m in p.get("float32", {}).values())
    alike = all(
        c["equal int64"] and c["alike"] == c["of"]
        for p in found
        for c in p.values()
        if isinstance(c, dict) and "of" in c
    )
    print(f"float32 moved {floats:.2f} of its claim at most, ours {ours:.6f}; exact sums alike everywhere: {alike}")
    return int(ours > 1 or not alike)


if __name__ == "__main__":
    sys.exit(main())
