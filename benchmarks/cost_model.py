"""What `efsgd plan` predicts of a step of DP-SGD, against what the step takes: time and memory for six batch sizes.

    python benchmarks/cost_model.py --config=configs/fmnist.py --out=benchmarks/results/cost_model.json

Time: operations of the compiler's account, of the rows that are sampled on average, divided by the operations a second
of this machine, plus a constant for each step; both are fitted to the smallest and the largest size, so that the other
sizes are predicted. Memory: temporary memory of the compiled step plus a constant, which is that of the smallest size
(the runtime's own buffers), against the growth of the process while it takes steps. Each size is a process of its own,
since memory that was given back is not always seen. Sizes are measured in turn, in several rounds, since a machine that
is shared has slow minutes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from baselines import EXAMPLES, SPEC, gradients_by, phase_by, random_records
from first_step import state_and_inputs
from provenance import provenance

from efsgd_jax.cli.parser import read_config
from efsgd_jax.training.setup import make_ledger
from efsgd_jax.training.step_cost import step_cost
from efsgd_jax.training.update import make_update

SIZES = "128,256,512,1024,2048,4096"


def memory(name: str) -> int:
    """``VmRSS`` or ``VmHWM``, its largest value, of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def one(path: str, size: int, steps: int) -> dict[str, Any]:
    """Predictions and measurements of one batch size, in this process."""
    config = read_config(path, [f"train.expected_batch_size={size}", "train.steps=20"])
    cost = step_cost(config, SPEC, EXAMPLES, 1)
    before = memory("VmRSS")
    records = random_records()
    microbatch = config.method.get("microbatch_size")
    with gradients_by("ghost"):
        phase, released = phase_by("ghost", microbatch, config, make_ledger(config, EXAMPLES).mechanism.phases)
        state, inputs = state_and_inputs(phase, records, released)
        update = make_update(phase).lower(state, jnp.int32(0), inputs).compile()
    del records
    Path("/proc/self/clear_refs").write_text("5")  # the largest value from now on
    at_rest = memory("VmRSS")
    times = []
    for step in range(steps + 1):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(update(state, jnp.int32(step), inputs))
        times.append(time.perf_counter() - start)
    return {
        "expected_batch_size": size,
        "operations": cost.operations * size / cost.rows,
        "predicted_bytes": cost.working,
        "held_bytes": cost.held,
        "ms": [1e3 * t for t in times[1:]],
        "measured_bytes": memory("VmHWM") - at_rest,
        "at_rest_bytes": at_rest - before,
    }


def predictions(rows: list[dict[str, Any]]) -> list[float]:
    """Milliseconds of a step of each size, by a line through the first and the last."""
    x = [row["operations"] for row in rows]
    y = [statistics.median(row["ms"]) for row in rows]
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    return [y[0] + slope * (operations - x[0]) for operations in x]


def to_table(rows: list[dict[str, Any]]) -> str:
    constant = rows[0]["measured_bytes"] - rows[0]["predicted_bytes"]
    lines = [
        "| batch | Gflop | ms, predicted | measured | ratio | temporary MiB, predicted | measured | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, predicted in zip(rows, predictions(rows), strict=True):
        ms, mib = statistics.median(row["ms"]), 2**20
        a, b = (row["predicted_bytes"] + constant) / mib, row["measured_bytes"] / mib
        lines.append(
            f"| {row['expected_batch_size']:,} | {row['operations'] / 1e9:.1f} | {predicted:.0f} | {ms:.0f} | "
            f"{predicted / ms:.2f} | {a:.0f} | {b:.0f} | {a / b if b else 0:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fmnist.py")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--steps", type=int, default=3, help="in one round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", required=True, help="JSON file of results")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)  # the process of one size, and where it writes
    args = parser.parse_args()
    if args.one:
        Path(args.one).write_text(json.dumps(one(args.config, int(args.sizes), args.steps)))
        return 0
    rows: list[dict[str, Any]] = []
    sizes = args.sizes.split(",")
    for size in sizes * args.rounds:
        with tempfile.NamedTemporaryFile(suffix=".json") as result:
            options = [f"--config={args.config}", f"--sizes={size}", f"--steps={args.steps}", f"--out={args.out}"]
            subprocess.run([sys.executable, __file__, *options, f"--one={result.name}"], check=True)
            row = json.loads(Path(result.name).read_text())
        if len(rows) < len(sizes):
            rows.append(row)
        else:
            rows[sizes.index(size)]["ms"] += row["ms"]
    print(to_table(rows))
    record = {**provenance(), "config": args.config, "rows": rows}
    Path(args.out).write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
