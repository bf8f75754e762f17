"""Memory of preparing and training on more and more images, up to more than fit into memory.

    python benchmarks/larger_than_memory.py --out=benchmarks/results/larger_than_memory.json

For each size: a .zip of JPEG files of 64x64 pixels in colour is written; `efsgd prepare` reads it; configs/folder.py
(sums over all images, in chunks) and 5 steps of a network by DP-SGD (Poisson batches of 256) train on what was
prepared. The largest anonymous memory of each process is what it cannot give back; pages of files, which the system
takes back when they are needed elsewhere, are not in it. The arrays of two million images are 23 GiB, which the disk
needs beside the .zip. Interrupted, the same command goes on with the next size.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import provenance

SIDE, CLASSES = 64, 2
TEST = 200
BASE = ["--config=configs/folder.py", f"--config.data.image_size={SIDE}"]
NETWORK = [
    "--config.method.name=efsgd_gan", "--config.method.generator_width=8", "--config.method.discriminator_width=8",
    "--config.method.encoder_width=8", "--config.method.max_width=32", "--config.train.steps=5",
    "--config.train.expected_batch_size=256", "--config.train.log_every=5", "--config.train.grid_every=5",
    "--config.privacy.feedback=local", "--config.privacy.feedback_l2_norm_clip=1.3",
]  # fmt: skip


def write_images(path: Path, count: int) -> None:
    """A .zip of ``count`` training images, no two of them alike, and a few test images."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i in range(count + TEST):
            label, (a, b, c, d) = i % CLASSES, rng.uniform(0, 1, 4)
            disc = (np.hypot(x - a, y - b) < 0.1 + 0.2 * c) if label else (np.abs(x - a) + np.abs(y - b) < 0.3)
            pixels = np.stack([200 * disc, 255 * d * x, 255 * (1 - c) * y], axis=2).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=80)
            part = "train" if i < count else "test"
            archive.writestr(f"{part}/{'ab'[label]}/{i}.jpg", file.getvalue())


def measured(command: list[str]) -> dict[str, float]:
    """Runs a command; its seconds, and its largest anonymous and resident memory in MiB."""
    most, start = {"RssAnon": 0, "VmHWM": 0}, time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "efsgd_jax", *command])
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in most:
                most[name] = max(most[name], int(value.split()[0]))
        time.sleep(0.1)
    if process.wait():
        raise SystemExit(f"efsgd {command[0]} failed")
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "anonymous_mib": round(most["RssAnon"] / 1024),
        "resident_mib": round(most["VmHWM"] / 1024),
    }


def one(count: int, scratch: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=scratch or None) as directory:
        source, prepared = Path(directory) / "images.zip", Path(directory) / "prepared"
        write_images(source, count)
        size = source.stat().st_size
        made = measured(["prepare", *BASE, f"--config.data.path={source}", f"--out={prepared}"])
        source.unlink()
        data = [*BASE, "--config.data.name=prepared", f"--config.data.path={prepared}"]
        return {
            "images": count,
            "source_mib": round(size / 2**20),
            "arrays_mib": round(sum(f.stat().st_size for f in prepared.glob("*.npy")) / 2**20),
            "prepare": made,
            "sums": measured(["train", *data, f"--workdir={directory}/sums"]),
            "network": measured(["train", *data, *NETWORK, f"--workdir={directory}/network"]),
            **provenance(),
        }


def to_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| images | arrays, GiB | prepare: MiB, s | sums over all: MiB, s | 5 steps of DP-SGD: MiB, s |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row[k]['anonymous_mib']:,}, {row[k]['seconds']:.0f}" for k in ("prepare", "sums", "network")]
        lines.append(f"| {row['images']:,} | {row['arrays_mib'] / 1024:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="20000,200000,2000000")
    parser.add_argument("--scratch", default="", help="directory for images and runs; default: the system's")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out = Path(args.out)
    rows = json.loads(out.read_text())["rows"] if out.is_file() else []
    for count in map(int, args.sizes.split(",")):
        if not any(row["images"] == count for row in rows):
            rows.append(one(count, args.scratch))
            out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
        print(to_table(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
