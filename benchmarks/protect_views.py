"""`efsgd protect views` on a scene that a formula draws: what NeRFs learn from clean, random and protected views.

    python benchmarks/protect_views.py --out=benchmarks/results/protect_views.json --pictures=benchmarks/results/protect

Three coloured spheres on a checkered floor, 24 views of 32x32 and 8 held-out views from other cameras, traced in JAX
with 16 rays for each pixel. Each seed has other cameras, too. Seeds that ``--out`` already has are not run again.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from provenance import provenance
from timing import write_record

from efsgd_jax.images import save_grid
from efsgd_jax.protect.captures import HELD_OUT, LISTS, Capture, write_capture
from efsgd_jax.protect.nerf import rays_of
from efsgd_jax.protect.views_attacks import CLEAN, PROTECTED, RANDOM, sheet
from efsgd_jax.protect.views_run import protect_capture

# Centre, radius and colour of each sphere; the floor is a square of side 2 * HALF at height FLOOR, in the unit ball.
SPHERES = (
    ((-0.3, -0.18, -0.12), 0.28, (0.85, 0.2, 0.2)),
    ((0.32, -0.12, -0.18), 0.22, (0.2, 0.65, 0.3)),
    ((0.02, 0.34, -0.15), 0.25, (0.25, 0.35, 0.85)),
)
FLOOR, HALF, CHECKS = -0.4, 0.64, 4
DARK, BRIGHT = (0.45, 0.4, 0.35), (0.85, 0.8, 0.7)
LIGHT = np.array((0.4, 0.3, 0.85)) / np.linalg.norm((0.4, 0.3, 0.85))
FAR, ANGLE, DISTANCE = 1e3, 0.7, 2.0


def trace(origins: jax.Array, directions: jax.Array) -> jax.Array:
    """Colours ``[R, 3]`` of rays: matt surfaces without shadows, before white."""
    depth = (FLOOR - origins[:, 2]) / directions[:, 2]
    at = origins + depth[:, None] * directions
    cell = jnp.sum(jnp.floor((at[:, :2] + HALF) * CHECKS / (2 * HALF)), axis=1) % 2
    on_floor = (depth > 0) & jnp.all(jnp.abs(at[:, :2]) < HALF, axis=1)
    colour = jnp.where(cell[:, None] == 0, jnp.array(DARK), jnp.array(BRIGHT))
    colour = jnp.where(on_floor[:, None], colour, 1.0)
    nearest = jnp.where(on_floor, depth, FAR)
    for centre, radius, paint in SPHERES:
        offset = origins - jnp.array(centre)
        along = jnp.sum(offset * directions, axis=1)
        inside = jnp.square(along) - jnp.sum(jnp.square(offset), axis=1) + radius**2
        depth = jnp.where(inside > 0, -along - jnp.sqrt(jnp.maximum(inside, 0.0)), FAR)
        normal = (offset + depth[:, None] * directions) / radius
        shade = 0.35 + 0.65 * jnp.maximum(normal @ jnp.asarray(LIGHT, jnp.float32), 0.0)
        hit = (depth > 0) & (depth < nearest)
        colour = jnp.where(hit[:, None], shade[:, None] * jnp.array(paint), colour)
        nearest = jnp.where(hit, depth, nearest)
    return colour


def look_at(position: np.ndarray) -> np.ndarray:
    """The pose ``[4, 4]`` of an upright camera that looks at the origin."""
    back = position / np.linalg.norm(position)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return pose


def cameras(count: int, seed: int) -> np.ndarray:
    """Poses ``[count, 4, 4]`` all around, 15 to 60 degrees above the floor."""
    rng = np.random.default_rng(seed)
    around = 2 * np.pi * (np.arange(count) + rng.uniform()) / count
    above = np.radians(rng.permutation(np.linspace(15, 60, count)))
    at = np.stack([np.cos(around) * np.cos(above), np.sin(around) * np.cos(above), np.sin(above)], axis=1)
    return np.stack([look_at(DISTANCE * x) for x in at])


def draw(poses: np.ndarray, side: int, fine: int = 4) -> np.ndarray:
    """Views uint8 ``[N, side, side, 3]``: the mean of ``fine`` x ``fine`` rays for each pixel."""
    n = side * fine
    focal = jnp.float32(n / 2 / np.tan(ANGLE / 2))

    @jax.jit
    def one(pose: jax.Array) -> jax.Array:
        rays = rays_of(jnp.broadcast_to(pose[:3], (n * n, 3, 4)), jnp.arange(n * n), (n, n), focal)
        return trace(*rays).reshape(side, fine, side, fine, 3).mean(axis=(1, 3))

    views = [np.asarray(one(jnp.asarray(pose, jnp.float32))) for pose in poses]
    return np.round(255 * np.stack(views)).astype(np.uint8)


def write_scene(directory: Path, count: int, held_out: int, side: int, seed: int) -> Capture:
    """Writes a capture with held-out views; returns its views."""
    captures = []
    for part, n, name in (("test", held_out, HELD_OUT), ("train", count, LISTS[0])):
        poses = cameras(n, 2 * seed + (part == "test"))
        files = tuple(f"{part}/r_{i}.png" for i in range(n))
        captures.append(Capture(draw(poses, side), poses, ANGLE, files))
        write_capture(directory, captures[-1])
        if name != LISTS[0]:
            (directory / LISTS[0]).rename(directory / name)
    return captures[-1]


def run(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Protects the scene and returns what attacks found; draws the picture of the first seed."""
    with tempfile.TemporaryDirectory() as place:
        clean = write_scene(Path(place) / "capture", args.views, args.held_out, args.side, seed)
        start = time.perf_counter()
        done = protect_capture(
            Path(place) / "capture", Path(place) / "out", max_shift=args.max_shift, seed=seed, say=print
        )
        seconds = time.perf_counter() - start
    report = done.report
    if args.pictures and seed == 0:
        difference = np.abs(done.capture.pictures.astype(int) - clean.pictures)
        rows = [clean.pictures, done.capture.pictures, np.minimum(4 * difference, 255).astype(np.uint8)]
        truth = draw(cameras(args.held_out, 1), args.side)
        seen = [report.of(name).shown for name in (CLEAN, RANDOM, PROTECTED)]
        save_grid(Path(args.pictures) / "views.png", sheet([*rows, truth, *seen]))
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "drop": report.drop,
        "more_than_random": report.more_than_random,
        "kept": {name: dict(zip(KEPT, numbers, strict=True)) for name, numbers in report.kept.items()},
        "shift": {name: {"mean": mean, "longest": longest} for name, (mean, longest) in done.shifts.items()},
        "outcomes": {o.attack: {"psnr": o.psnr, "aligned": o.aligned} for o in report.outcomes},
    }


KEPT = ("least_psnr", "mean_psnr", "least_ssim", "mean_ssim")


def to_table(runs: list[dict[str, Any]]) -> str:
    def mean(*path: str) -> float:
        values = []
        for found in runs:
            for name in path:
                found = found[name]
            values.append(found)
        return float(np.mean(values))

    lines = ["| learned from | held-out PSNR | below clean | cameras aligned |", "|---|---|---|---|"]
    names = list(runs[0]["outcomes"])
    for name in names:
        value, aligned = mean("outcomes", name, "psnr"), mean("outcomes", name, "aligned")
        lines.append(f"| {name} | {value:.1f} | {mean('outcomes', names[0], 'psnr') - value:.1f} | {aligned:.1f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--held_out", type=int, default=8)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--max_shift", type=float, default=1.0)
    parser.add_argument("--pictures", help="a directory for the picture of the first seed")
    parser.add_argument("--out", help="JSON file of results; written after each seed")
    args = parser.parse_args()
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "pictures", "seeds")}
    runs = []
    if args.out and Path(args.out).is_file():
        before = json.loads(Path(args.out).read_text())
        runs = before["runs"] if before["settings"] == settings else []
    for seed in map(int, args.seeds.split(",")):
        if seed in [x["seed"] for x in runs]:
            continue
        found = run(args, seed)
        runs = sorted([*runs, found], key=lambda x: x["seed"])
        write_record(args.out, {**provenance(), "settings": settings, "runs": runs})
        print({k: found[k] for k in ("seed", "seconds", "drop", "more_than_random", "kept", "shift")})
    print(to_table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
