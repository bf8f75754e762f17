"""The published family, idea by idea: at the papers' noise, and at a proven epsilon of 10.

    python benchmarks/family.py --out=benchmarks/results/family.json --data=fashion_mnist.npz

About 5 minutes a run on 2 CPU cores (2 to 3 of training), 12 variants, 2 runs each. Every run draws its own keys from
the system's entropy. Interrupted, the same command goes on where it was, also on a later commit: each run says its own.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from ablation import spread
from provenance import provenance

from efsgd_jax import UserError, evaluate, fit
from efsgd_jax.cli.parser import read_config
from efsgd_jax.formatting import format_epsilon

RECONSTRUCTION, CLASSIFIER = "method.reconstruction_weight=0.02", "method.classifier_weight=0.2"
NOISE_INJECTION = "method.noise_injection=true"
# What the published code does, at the noise that the papers use; nothing near 10 is proven of it.
PAPERS = ("privacy.schedule=published", "privacy.allow_unproven=true", "privacy.noise_multiplier=1.07")
HIDDEN = ("privacy.feedback=hidden", "privacy.feedback_l2_norm_clip=1")
CODES = (RECONSTRUCTION, "method.reconstruction_from=codes")
# Every image is scored by a shard chosen at random; the noise is solved for epsilon 10. The forms of feedback and of
# reconstruction that cost nothing.
PRIVATE = ("privacy.feedback=private", "privacy.feedback_l2_norm_clip=2")
PRIOR = (RECONSTRUCTION, "method.reconstruction_from=prior")


def variants(settings: tuple[str, ...], feedback: tuple[str, ...], reconstruction: tuple[str, ...]) -> dict:
    """The ideas one by one, and together."""
    ideas = {
        "error feedback": feedback,
        "noise injection": (NOISE_INJECTION,),
        "reconstruction": reconstruction,
        "classifier": (CLASSIFIER,),
    }
    together = tuple(assignment for idea in ideas.values() for assignment in idea)
    every = {"baseline": (), **{f"+ {name}": idea for name, idea in ideas.items()}, "all": together}
    return {name: (*settings, *assignments) for name, assignments in every.items()}


SETTINGS = {
    "papers' noise": variants(PAPERS, HIDDEN, CODES),
    "proven epsilon": variants(("privacy.schedule=independent",), PRIVATE, PRIOR),
}


def run(config_path: str, assignments: list[str], workdir: Path) -> dict:
    """Trains (or continues) and scores one run."""
    config = read_config(config_path, assignments)
    resumed = workdir.exists()
    start = time.perf_counter()
    result = fit(config, workdir)
    seconds = None if resumed else round(time.perf_counter() - start, 1)
    scores = evaluate(
        workdir, num_images=10_000, metrics=("utility", "fidelity"), classifiers=("cnn",), classifier_seeds=1
    )
    here, measures = provenance(), scores.fidelity["classifier"]
    return {
        "accountings": result.privacy["accountings"],
        "noise_multiplier": result.privacy["phases"][0]["mechanism_parameters"]["noise_multiplier"],
        "guarantee": result.privacy["guarantee"],
        "steps": result.steps,
        "train_seconds": seconds,
        "gen2real_cnn": scores.gen2real["cnn"].accuracy,
        "real2gen_cnn": scores.real2gen["cnn"].accuracy,
        "fid_classifier": measures["fid"],
        "inception_score": measures["inception_score"],
        "date": here["date"],
        "commit": here["commit"],
    }


def to_table(runs: dict[str, list[dict]]) -> str:
    lines = [
        "| variant | runs | epsilon as published | epsilon proven | sigma | gen2real CNN | real2gen CNN "
        "| FID (classifier features) | IS | train seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in runs.items():
        if not rows:
            continue
        first = rows[0]
        epsilons = [_number(first["accountings"][k]) for k in ("as_published", "proven")]
        scores = [spread([100 * row[k] for row in rows]) for k in ("gen2real_cnn", "real2gen_cnn")]
        scores += [spread([row["fid_classifier"] for row in rows]), spread([row["inception_score"] for row in rows], 2)]
        seconds = spread([row["train_seconds"] for row in rows if row["train_seconds"] is not None], digits=0)
        cells = [name, str(len(rows)), *epsilons, f"{first['noise_multiplier']:.3f}", *scores, seconds]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(x: float | str) -> str:
    return x if isinstance(x, str) else format_epsilon(x, 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/sanitized_fmnist_small.py")
    parser.add_argument("--data", default="", help="config.data.path")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--settings", default=";".join(SETTINGS), help="separated by ;")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every variant; repeatable")
    parser.add_argument("--workdir", default="runs/family", help="the runs' own directories")
    parser.add_argument("--grids", help="directory for a sample grid of each variant's first run")
    parser.add_argument("--out", required=True, help="JSON file of results; what is in it is not run again")
    args = parser.parse_args()
    out = Path(args.out)
    record = json.loads(out.read_text()) if out.is_file() else {**provenance(), "settings": {}}
    out.parent.mkdir(parents=True, exist_ok=True)
    for i in range(args.runs):  # a first run of everything before a second of anything
        for setting in args.settings.split(";"):
            for name, assignments in SETTINGS[setting].items():
                done = record["settings"].setdefault(setting, {}).setdefault(name, [])
                if len(done) > i:
                    continue
                label = "".join(c if c.isalnum() else "_" for c in f"{setting}_{name}")
                workdir = Path(args.workdir) / f"{label}_{i}"
                path = [f"data.path={args.data}"] if args.data else []
                try:
                    done.append(run(args.config, [*path, *args.set, *assignments], workdir))
                except UserError as error:
                    print(f"{setting}, {name}: {error}", file=sys.stderr)
                    continue
                if args.grids and i == 0:
                    Path(args.grids).mkdir(parents=True, exist_ok=True)
                    shutil.copy(workdir / "release" / "samples.png", Path(args.grids) / f"{label}.png")
                out.write_text(json.dumps(record, indent=1) + "\n")
                print(f"{setting}\n{to_table(record['settings'][setting])}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
