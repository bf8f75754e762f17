"""A small table by a Born machine: Fashion-MNIST's label beside seven coarse measurements of each image.

    python benchmarks/tables.py --fashion_mnist=fashion_mnist.npz --runs=3 --out=benchmarks/results/tables.json

For synthetic rows, as many as there are real ones: the total variation distance to the test split, a mean over all
pairs of columns; and the accuracy on the test split of gradient boosting that learned the label from the other columns
of them. Beside it: the real training rows, and real rows whose columns were shuffled by themselves, which is what any
method reaches that knows each column and nothing of pairs. The edges of the intervals are round numbers, not read off
the images. With --held_out the last tenth of the training split takes the place of the test split.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
from ablation import spread
from provenance import provenance
from sklearn.ensemble import HistGradientBoostingClassifier

from efsgd_jax.tables import Columns, fit_table

LIGHT = {"edges": [0, 0.1, 0.2, 0.3, 0.45, 0.6, 1]}
EXTENT = {"edges": [0, 0.4, 0.6, 0.8, 0.9, 1]}
# In an order in which neighbours have much in common.
DECLARED = {
    "upper left": LIGHT,
    "upper right": LIGHT,
    "height": EXTENT,
    "label": [str(i) for i in range(10)],
    "width": EXTENT,
    "lower left": LIGHT,
    "lower right": LIGHT,
    "edges": {"edges": [0, 0.03, 0.05, 0.08, 0.12, 1]},
}
COLUMNS = Columns.declared(DECLARED)
EPSILONS = (1.0, 10.0)


def rows_of(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The table's columns, for images uint8 ``[N, 28, 28]``."""
    x = images.astype(np.float32) / 255
    return {
        "upper left": x[:, :14, :14].mean((1, 2)),
        "upper right": x[:, :14, 14:].mean((1, 2)),
        "lower left": x[:, 14:, :14].mean((1, 2)),
        "lower right": x[:, 14:, 14:].mean((1, 2)),
        "height": (x.max(2) > 0.2).mean(1),
        "width": (x.max(1) > 0.2).mean(1),
        "edges": np.abs(np.diff(x, axis=2)).mean((1, 2)),
        "label": labels.astype(str),
    }


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean total variation distance of the pairs of columns of two tables of indices."""
    found = []
    for i, j in itertools.combinations(range(len(COLUMNS.names)), 2):
        cells = len(COLUMNS.values[i]) * len(COLUMNS.values[j])
        p, q = (np.bincount(t[:, i] * len(COLUMNS.values[j]) + t[:, j], minlength=cells) / len(t) for t in (a, b))
        found.append(0.5 * np.abs(p - q).sum())
    return float(np.mean(found))


def scores(rows: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Scores of synthetic rows of indices."""
    k = COLUMNS.names.index("label")
    others = [i for i in range(len(COLUMNS.names)) if i != k]
    found = HistGradientBoostingClassifier(random_state=0).fit(rows[:, others], rows[:, k])
    return {"distance": distance(rows, test), "accuracy": float(found.score(test[:, others], test[:, k]))}


def one(train: dict[str, np.ndarray], test: np.ndarray, epsilon: float) -> dict:
    """One fit, and the scores of as many rows as there are real ones."""
    start = time.perf_counter()
    table = fit_table(train, COLUMNS, epsilon=epsilon)
    seconds = time.perf_counter() - start
    drawn = table.sample(len(train["label"]))
    place = [{value: i for i, value in enumerate(values)} for values in COLUMNS.values]
    rows = np.stack([[p[v] for v in drawn[n]] for n, p in zip(COLUMNS.names, place, strict=True)], axis=1)
    return {"epsilon": table.epsilon, "seconds": round(seconds, 1), **scores(rows, test)}


def to_table(runs: dict[str, list[dict]]) -> str:
    lines = ["| rows | runs | distance of pairs | accuracy | seconds |", "|---|---|---|---|---|"]
    for name, found in runs.items():
        shown = [
            spread([r["distance"] for r in found], digits=3),
            spread([100 * r["accuracy"] for r in found]),
            spread([r["seconds"] for r in found], digits=0) if "seconds" in found[0] else "",
        ]
        lines.append(f"| {name} | {len(found)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion_mnist", required=True, help="the .npz file")
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    data = np.load(args.fashion_mnist)
    train, test = (data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])
    if args.held_out:
        cut = len(train[0]) * 9 // 10
        train, test = (train[0][:cut], train[1][:cut]), (train[0][cut:], train[1][cut:])
    rows, tested = rows_of(*train), COLUMNS.encode(rows_of(*test))
    real = COLUMNS.encode(rows)
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(column) for column in real.T], axis=1)
    runs = {"real": [scores(real, tested)], "real, each column shuffled": [scores(shuffled, tested)]}
    for epsilon in EPSILONS:
        runs[f"Born machine, epsilon {epsilon:g}"] = [one(rows, tested, epsilon) for _ in range(args.runs)]
    record = {"held_out": args.held_out, "rows": len(real), "runs": runs, **provenance()}
    Path(args.out).write_text(json.dumps(record, indent=1) + "\n")
    print(to_table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
