"""A config against itself with one option changed: epsilon, gen2real and minutes of each, mean and std over runs.

    python benchmarks/ablation.py --config=configs/efsgd_digits.py --runs=3 --out=benchmarks/results/digits.json

About 40 seconds a run for digits on 2 CPU cores. Every run draws its own keys from the system's entropy. Interrupted,
the same command goes on where it was: finished runs are read from --out, a half-finished one resumes.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from held_out import without_test_split
from provenance import provenance

from efsgd_jax import UserError, evaluate, fit
from efsgd_jax.cli.parser import read_config
from efsgd_jax.formatting import format_epsilon

FEEDBACK = [
    ("hidden feedback", "hidden", 1),  # as published: the residual's clip norm is about a gradient's
    ("hidden feedback, short", "hidden", 0.02),
    ("local feedback", "local", 1.3),  # S, the joint sensitivity of the configs' clip norms
    ("private feedback", "private", 2.6),
]

VARIANTS: dict[str, tuple[str, ...]] = {
    "config": (),
    "no noise": ("privacy.epsilon=inf",),
    "epsilon 1": ("privacy.epsilon=1",),
    **{name: (f"privacy.feedback={mode}", f"privacy.feedback_l2_norm_clip={norm}") for name, mode, norm in FEEDBACK},
    "no noise injection": ("method.noise_injection=false",),
    "no reconstruction": ("method.reconstruction_weight=0",),
    "no generator step": ("method.generator_learning_rate=0",),
    "no classifier term": ("method.generator_classifier_weight=0",),
    "bfloat16": ("method.compute_dtype=bfloat16",),
    "no average of the generator": ("method.ema_decay=0",),
    "a generator step after each private one": ("method.private_steps_per_generator_step=1",),
    "a generator step after five private ones": ("method.private_steps_per_generator_step=5",),
    "twice the batch": ("train.expected_batch_size=512",),
    "half the learning rate": ("method.learning_rate=0.002",),
    "twice the width": ("method.max_width=64",),
    "4 copies of each image": ("method.augmentation_multiplicity=4",),
    "equal clip norms": ("privacy.l2_norm_clip.discriminator=1", "privacy.l2_norm_clip.encoder=1"),
}


def run(config_path: str, assignments: list[str], workdir: Path) -> dict:
    """Trains (or continues) and scores one run."""
    config = read_config(config_path, assignments)
    resumed = workdir.exists()
    start = time.perf_counter()
    result = fit(config, workdir)
    seconds = None if resumed else round(time.perf_counter() - start, 1)
    scores = evaluate(workdir, metrics=("utility",), classifiers=("logistic_regression", "cnn"), classifier_seeds=1)
    return {
        "epsilon": result.privacy["epsilon"],
        "noise_multiplier": result.privacy["phases"][0]["mechanism_parameters"]["noise_multiplier"],
        "steps": result.steps,
        "clipped_share": clipped_share(result.workdir / "private" / "metrics.jsonl"),
        "train_seconds": seconds,
        "gen2real": {name: u.accuracy for name, u in scores.gen2real.items()},
        "real2gen": {name: u.accuracy for name, u in scores.real2gen.items()},
    }


def clipped_share(metrics: Path) -> dict[str, float]:
    """For each network, the share of its per-example gradients that were longer than its clip norm; mean over a run."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    prefix = "clipped_share_"
    names = [name for name in rows[0] if name.startswith(prefix)]
    return {name.removeprefix(prefix): statistics.mean(row[name] for row in rows) for name in names}


def to_table(runs: dict[str, list[dict]]) -> str:
    lines = [
        "| variant | runs | epsilon | sigma | gen2real LR | gen2real CNN | clipped D / E / G | train seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in runs.items():
        if not rows:
            continue
        scores = [spread([100 * row["gen2real"][c] for row in rows]) for c in ("logistic_regression", "cnn")]
        seconds = spread([row["train_seconds"] for row in rows if row["train_seconds"] is not None], digits=0)
        clipped = " / ".join(
            f"{100 * statistics.mean(row['clipped_share'][n] for row in rows):.0f}"
            for n in ("discriminator", "encoder", "generator")
        )
        epsilon = rows[0]["epsilon"] if isinstance(rows[0]["epsilon"], str) else format_epsilon(rows[0]["epsilon"])
        sigma = f"{rows[0]['noise_multiplier']:.3f}"
        lines.append(
            f"| {name} | {len(rows)} | {epsilon} | {sigma} | {scores[0]} | {scores[1]} | {clipped} | {seconds} |"
        )
    return "\n".join(lines)


def spread(values: list[float], digits: int = 1) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/efsgd_digits.py")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--variants", default=";".join(VARIANTS), help="separated by ;")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every variant; repeatable")
    parser.add_argument(
        "--held_out", action="store_true", help="score the last tenth of the training split, not the test split"
    )
    parser.add_argument("--workdir", default="runs/ablation", help="the runs' own directories")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    unknown = [name for name in args.variants.split(";") if name not in VARIANTS]
    if unknown:
        parser.error(f"no variant {unknown[0]!r}; there are: {'; '.join(VARIANTS)}")
    out = Path(args.out)
    here = provenance()
    record = json.loads(out.read_text()) if out.is_file() else {**here, "runs": {}}
    if (record["command"], record["commit"]) != (here["command"], here["commit"]):
        print(f"error: {out} is of commit {record['commit']}, {record['command']}; use another --out", file=sys.stderr)
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    if args.held_out:
        data = read_config(args.config, args.set).data
        Path(args.workdir).mkdir(parents=True, exist_ok=True)
        held_out = without_test_split(data.path, data.name, Path(args.workdir))
        args.set += ["data.name=npz", f"data.path={held_out}"]
    for variant in args.variants.split(";"):
        done = record["runs"].setdefault(variant, [])
        for i in range(len(done), args.runs):
            workdir = Path(args.workdir) / Path(args.config).stem / f"{variant.replace(' ', '_')}_{i}"
            try:
                done.append(run(args.config, [*args.set, *VARIANTS[variant]], workdir))
            except UserError as error:
                print(f"{variant}: {error}", file=sys.stderr)
                break
            out.write_text(json.dumps(record, indent=1) + "\n")
        print(to_table(record["runs"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
