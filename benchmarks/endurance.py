"""Resident memory of a tiny run over 100,000 steps: it must not grow.

    python benchmarks/endurance.py --out=benchmarks/results/endurance.json

Ten minutes on 2 CPU cores. Linux only: memory is read from /proc. Memory after the first 5,000 steps is the
reference; compared are the medians of what was seen in windows of 5,000 steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from provenance import provenance
from timing import write_record

WINDOW = 5000
TINY = {
    "train.expected_batch_size": 8,
    "train.log_every": 1000,
    "train.grid_every": 5000,
    "method.latent": 4,
    "method.generator_width": 2,
    "method.discriminator_width": 2,
    "method.encoder_width": 2,
    "method.max_width": 4,
    "method.features": 4,
    "method.generated_batch_size": 4,
    "method.microbatch_size": 8,
}


def resident(pid: int) -> int:
    """KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def last_step(metrics: Path) -> int:
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    return json.loads(lines[-1])["step"] if lines else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    windows: dict[int, list[int]] = {}
    with tempfile.TemporaryDirectory() as directory:
        workdir = Path(directory) / "run"
        flags = [f"--config.{key}={value}" for key, value in {**TINY, "train.steps": args.steps}.items()]
        command = [sys.executable, "-m", "efsgd_jax.train", f"--workdir={workdir}", *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            time.sleep(1.0)
            step = last_step(workdir / "private/metrics.jsonl")
            if process.poll() is None and step:
                windows.setdefault(step // WINDOW, []).append(resident(process.pid))
        if process.returncode:
            print(f"error: the run ended with status {process.returncode}", file=sys.stderr)
            return 1
    rows = {(k + 1) * WINDOW: round(statistics.median(v) / 1024, 1) for k, v in windows.items()}
    print("| steps | resident MiB |\n|---|---|")
    for step, mib in rows.items():
        print(f"| {step} | {mib} |")
    after = [mib for step, mib in rows.items() if step > WINDOW]
    growth = after[-1] / after[0] - 1 if after else float("nan")
    print(f"growth after the first {WINDOW} steps: {100 * growth:.2f}%")
    write_record(args.out, {**provenance(), "resident_mib": rows, "growth": growth})
    return 0


if __name__ == "__main__":
    sys.exit(main())
