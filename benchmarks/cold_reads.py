"""Reading one Poisson batch of images from a disk that has none of them in memory, with and without reading ahead.

    python benchmarks/cold_reads.py --out=benchmarks/results/cold_reads.json

A file of 500,000 images of 64x64 pixels in colour, 5.7 GiB; batches of 1,024 random rows. Before each reading the
system is told to forget the file's pages. In turn.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from provenance import provenance
from timing import ratios, spread, write_record

from efsgd_jax.privacy import stored
from efsgd_jax.privacy.stored import Stored

SHAPE = (64, 64, 3)


def seconds(path: Path, count: int, rows: np.ndarray) -> float:
    """Of one reading, from a cold start."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    records = Stored(np.memmap(path, np.uint8, "r", shape=(count, *SHAPE)))
    start = time.perf_counter()
    records.read(rows)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--scratch", default="", help="directory on the disk to measure; default: the system's")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    rng, times = np.random.default_rng(0), {"reading ahead": [], "page by page": []}
    with tempfile.TemporaryDirectory(dir=args.scratch or None) as directory:
        path = Path(directory) / "images"
        block = rng.integers(0, 256, (1000, *SHAPE), np.uint8).tobytes()
        with path.open("wb") as file:
            for _ in range(0, args.images, 1000):
                file.write(block)
            os.fsync(file.fileno())
        for _ in range(args.rounds):
            rows = rng.integers(0, args.images, args.batch)
            times["reading ahead"].append(1e3 * seconds(path, args.images, rows))
            with mock.patch.object(stored, "read_ahead"):
                times["page by page"].append(1e3 * seconds(path, args.images, rows))
    for name, values in times.items():
        print(f"{name}: {spread(values, 1)} ms")
    print(f"ratio: {spread(ratios(times['page by page'], times['reading ahead']), 1)}")
    sizes = {k: v for k, v in vars(args).items() if k not in ("out", "scratch")}
    write_record(args.out, {**provenance(), "sizes": sizes, "ms": times})
    return 0


if __name__ == "__main__":
    sys.exit(main())
