"""A digits run that is killed at random moments, again and again, against one that nothing happens to.

    python benchmarks/kills.py --kills=50 --out=benchmarks/results/kills.json

kill -9 and SIGTERM in turn, each after a time that is uniform in what a whole run takes; the same command then
continues. Ends when the run has ended and was killed as often as asked: a run that ends too early begins anew, and
counts as one more. Compared are the released generator, the privacy report, the metrics' steps and what lies about.
About ten minutes on 2 CPU cores. With a debugging seed, since otherwise no two runs are the same.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.serialization import msgpack_restore
from provenance import provenance
from timing import write_record

STEPS = 300
FLAGS = [f"--config.train.steps={STEPS}", "--config.train.log_every=10", "--config.train.grid_every=20"]
FLAGS += ["--config.train.seed=7", "--config=configs/efsgd_digits.py"]


def start(workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "efsgd_jax.train", *FLAGS, f"--workdir={workdir}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def to_the_end(workdir: Path) -> float:
    """Seconds that the run took from here."""
    begin = time.perf_counter()
    process = start(workdir)
    _, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"the run failed: {err[-2000:]}")
    return time.perf_counter() - begin


def compare(run: Path, whole: Path) -> dict[str, Any]:
    """What differs between two finished runs."""
    a, b = (msgpack_restore((d / "release/generator.msgpack").read_bytes()) for d in (run, whole))
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    reports = [json.loads((d / "release/privacy.json").read_text()) for d in (run, whole)]
    rows = [
        [json.loads(line)["step"] for line in (d / "private/metrics.jsonl").read_text().splitlines()]
        for d in (run, whole)
    ]
    left = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if "tmp" in p.name)
    return {
        "largest_difference_of_a_parameter": max(float(np.abs(x - y).max()) for x, y in pairs),
        "same_privacy_report": reports[0] == reports[1],
        "same_steps_in_metrics": rows[0] == rows[1],
        "temporary_files_left": left,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    random.seed(0)
    runs, ends = [], {"SIGKILL": 0, "SIGTERM": 0}
    with tempfile.TemporaryDirectory() as directory:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{directory}/compiled")
        whole = Path(directory) / "whole"
        to_the_end(whole)
        shutil.rmtree(whole)
        seconds = to_the_end(whole)  # with compiled programs at hand, as the killed ones have them
        run, last = Path(directory) / "run", 0
        while (kills := sum(ends.values())) < args.kills:
            process = start(run)
            sign = (signal.SIGKILL, signal.SIGTERM)[kills % 2]
            try:
                _, err = process.communicate(timeout=random.uniform(0.0, seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(sign)
                _, err = process.communicate()
                # SIGTERM may come when the last step is done, or before there is anything to keep.
                if process.returncode != 0:
                    ends[sign.name] += 1
                    if "Traceback" in err:
                        raise SystemExit(f"a traceback: {err[-2000:]}") from None
            begun = run / "private/begun.json"
            steps = json.loads(begun.read_text())["steps"] if begun.is_file() else 0
            assert steps >= last, "the ledger fell"
            last = steps
            if process.returncode == 0:
                runs.append(compare(run, whole))
                shutil.rmtree(run)
                last = 0
            elif process.returncode == 2:
                raise SystemExit(f"refused: {err[-2000:]}")
            print(f"{kills} kills, {len(runs)} runs ended, steps begun {last}", flush=True)
        to_the_end(run)
        runs.append(compare(run, whole))
    print("| runs ended | kills -9 | SIGTERM | largest difference of a parameter | same report | files left |")
    print("|---|---|---|---|---|---|")
    worst = max(r["largest_difference_of_a_parameter"] for r in runs)
    same = all(r["same_privacy_report"] and r["same_steps_in_metrics"] for r in runs)
    left = sum(len(r["temporary_files_left"]) for r in runs)
    print(f"| {len(runs)} | {ends['SIGKILL']} | {ends['SIGTERM']} | {worst:.2g} | {same} | {left} |")
    write_record(args.out, {**provenance(), "steps": STEPS, "kills": ends, "runs": runs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
