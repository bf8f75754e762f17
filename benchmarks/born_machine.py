"""The Born machine on digits: exact log-likelihood of real test images, and scores of its own images.

    python benchmarks/born_machine.py --runs=3 --out=benchmarks/results/born_machine.json

configs/born_machine_digits.py at epsilon 10, delta 1e-5: digits of 8x8 pixels in black and white, a chain of matrices
for each class, and one chain for all of them. Minus the log-likelihood is in nats per pixel, given the class; a coin
for each pixel has 0.693. Accuracies are of classifiers that are trained on 1,500 generated images and tested on real
ones, which have 17 levels of grey. With --held_out the last tenth of the training split takes the place of the test
split. Interrupted, the same command goes on where it was. A few minutes a run on 2 CPU cores.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ablation import spread
from held_out import without_test_split
from provenance import provenance
from quality import results_in

from efsgd_jax import evaluate_samples, fit, load_dataset, sample
from efsgd_jax.cli.parser import read_config
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir

CONFIG, SAMPLES = "configs/born_machine_digits.py", 1500
VARIANTS = {
    "a chain for each class": [],
    "the same without noise": ["privacy.epsilon=inf"],
    "one chain": ["method.chains=label"],
}


def nats_per_pixel(run: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Minus the mean log-likelihood of images uint8 ``[N, S, S, 1]``, given their labels, divided by their pixels."""
    generator = released_generator(Workdir(run))
    assert generator.log_likelihood is not None
    found = jax.jit(generator.log_likelihood)(generator.params, jnp.asarray(images), jnp.asarray(labels))
    return -float(np.mean(found)) / images[0].size


def one(assignments: list[str], data: list[str], run: Path) -> dict:
    """Trains, draws and scores one run."""
    config = read_config(CONFIG, [*data, *assignments])
    result = fit(config, run, progress=False)
    sample(run, SAMPLES, out=run / "samples", formats=("npz", "grid"))
    scores = evaluate_samples(
        run / "samples/samples.npz", config, classifiers=("logistic_regression", "cnn"), classifier_seeds=1
    )
    real = load_dataset(config.data.name, path=config.data.get("path") or None)
    return {
        "epsilon": result.privacy["epsilon"],
        "nats_per_pixel": nats_per_pixel(run, real.test_images, real.test_labels),
        **{f"gen2real_{name}": score.accuracy for name, score in scores.gen2real.items()},
        **scores.fidelity["classifier"],
    }


def to_table(runs: dict[str, list[dict]]) -> str:
    """One row for each variant."""
    lines = ["| chains | runs | nats per pixel | gen2real LR | CNN | recall |", "|---|---|---|---|---|---|"]
    for name, rows in runs.items():
        linear, cnn = (spread([100 * row[f"gen2real_{k}"] for row in rows]) for k in ("logistic_regression", "cnn"))
        nats, recall = spread([row["nats_per_pixel"] for row in rows], digits=3), np.mean([r["recall"] for r in rows])
        lines.append(f"| {name} | {len(rows)} | {nats} | {linear} | {cnn} | {recall:.2f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--variants", default=";".join(VARIANTS), help="separated by ;")
    parser.add_argument("--grids", default="", help="directory for a grid of each variant's images")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out = Path(args.out)
    record = results_in(out, held_out=args.held_out)
    with tempfile.TemporaryDirectory() as directory:
        data = []
        if args.held_out:
            data = ["data.name=npz", f"data.path={without_test_split('', 'digits', Path(directory))}"]
        for variant in args.variants.split(";"):
            done = record["runs"].setdefault(variant, [])
            while len(done) < args.runs:
                run = Path(directory) / "run"
                shutil.rmtree(run, ignore_errors=True)
                done.append({**one(VARIANTS[variant], data, run), **provenance()})
                out.write_text(json.dumps(record, indent=1) + "\n")
                if args.grids:
                    Path(args.grids).mkdir(parents=True, exist_ok=True)
                    shutil.copy(run / "samples/grid.png", Path(args.grids) / f"{variant.replace(' ', '_')}.png")
            print(to_table(record["runs"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
