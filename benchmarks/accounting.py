"""Noise for random sampled Gaussians, epsilon from 0.01 to 200 and delta from 1e-15, against dp-accounting.

    python benchmarks/accounting.py --cases=200 --out=benchmarks/results/accounting.json

Each is solved for, and must satisfy what ``tests/random_accounting.py`` asserts. A case is written when it is done, and
not computed again. About a quarter of an hour on one CPU core.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from provenance import provenance
from timing import write_record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from random_accounting import check, random_case

from efsgd_jax.formatting import format_epsilon


def table(cases: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "| q | steps | delta | target | noise multiplier | epsilon | dp-accounting's | seconds |",
        "|" + "---|" * 8,
    ]
    for c in cases.values():
        head = f"| {c['q']:.4g} | {c['steps']} | {c['delta']:.1e} | {format_epsilon(c['target'])} |"
        if "refused" in c:
            lines.append(f"{head} refused: {c['refused']} | | | |")
            continue
        theirs = format_epsilon(c["theirs"], 6) if "theirs" in c else ""
        lines.append(f"{head} {c['sigma']:.5g} | {format_epsilon(c['coarse'], 6)} | {theirs} | {c['seconds']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    record = json.loads(args.out.read_text()) if args.out.is_file() else {**provenance(), "cases": {}}
    for seed in range(args.cases):
        if str(seed) not in record["cases"]:
            record["cases"][str(seed)] = check(random_case(seed))
            write_record(args.out, record)
    print(table(record["cases"]))


if __name__ == "__main__":
    main()
