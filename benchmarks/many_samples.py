"""A million images drawn and written: memory before and after, images a second, and whether the counts are exact.

    python benchmarks/many_samples.py --mnist=mnist.npz --out=benchmarks/results/many_samples.json

The mixture of configs/mixture_mnist.py, written as Parquet files; first a tenth of the images, then all of them, in one
process. About ten minutes on 2 CPU cores.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
from provenance import provenance

from efsgd_jax import fit, load_config, write_samples


def resident_mib() -> float:
    """Resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="the .npz file")
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        run = Path(directory) / "run"
        config = load_config("configs/mixture_mnist.py")
        config.data.path = args.mnist
        fit(config, run, progress=False)
        for n in (args.n // 10, args.n):
            before, start = resident_mib(), time.perf_counter()
            seen = [before]
            counts = write_samples(
                run,
                Path(directory) / f"{n}",
                n,
                formats=[args.format],
                advance=lambda *_, seen=seen: seen.append(resident_mib()),
            )
            seconds, most = time.perf_counter() - start, max(seen)
            written = sum(pq.read_metadata(f).num_rows for f in (Path(directory) / f"{n}/data").glob("*.parquet"))
            rows.append(
                {
                    "images": n,
                    "written": written if args.format == "parquet" else None,
                    "per_class": counts,
                    "mib_before": round(before),
                    "mib_most": round(most),
                    "mib_after": round(resident_mib()),
                    "images_per_second": round(n / seconds),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"rows": rows, **provenance()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
