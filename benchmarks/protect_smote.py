"""The digits as a table of 64 numbers and a label: rows that ``efsgd protect smote`` replaces, and its private form.

    python benchmarks/protect_smote.py --out=benchmarks/results/protect_smote.json

Of each: cells equal to the original, the accuracy of logistic regression that learned from the rows on a fifth of the
originals that nothing was made of, and who recognises which row is which. ``published`` is the rule of the paper's
code, in which a value whose noise falls out of the column's range stays as it was; it is attacked by the number of
equal cells and by its own likelihood too. Rows between private centres are made of no row; their cells are compared
with those of the nearest original. Some minutes on 2 CPU cores.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from provenance import provenance
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from efsgd_jax.evaluation.metrics.neighbours import copying
from efsgd_jax.protect.private_smote import fit_centres
from efsgd_jax.protect.rows import Rows, read_rows
from efsgd_jax.protect.smote import Moved, in_random_order, near_rows, smote
from efsgd_jax.protect.smote_attacks import Likelihood, attack_report, linked_by_likelihood
from efsgd_jax.protect.smote_likelihood import NOTHING, SAME

SCALES, EPSILONS, NEIGHBOURS, FEWEST = (0.3, 1.0, 3.0), (1.0, 10.0), 5, 3


def table(pixels: np.ndarray, labels: np.ndarray) -> Rows:
    columns = {f"pixel {i}": [str(v) for v in pixels[:, i]] for i in range(pixels.shape[1])}
    declared = {name: {"range": [0, 16]} for name in columns}
    return read_rows(columns | {"digit": [str(v) for v in labels]}, declared | {"digit": [str(i) for i in range(10)]})


def published(cells: np.ndarray, labels: np.ndarray, noise_scale: float, seed: int) -> np.ndarray:
    """The rule of the paper's code: noise that leaves the range of its column is dropped, and the true value stays."""
    rng = np.random.default_rng(seed)
    near = near_rows(cells, labels, NEIGHBOURS)
    other = cells[near.rows[np.arange(len(cells)), rng.integers(near.counts)]]
    sign = rng.choice([-1.0, 1.0], size=cells.shape)
    step = np.where(other == cells, sign * cells.std(axis=0), other - cells)
    moved = cells + step * rng.laplace(scale=noise_scale, size=cells.shape)
    low, high = cells.min(axis=0), cells.max(axis=0)
    return np.where((moved < low) | (moved > high), cells, moved)


def published_likelihood(cells: np.ndarray, noise_scale: float) -> Likelihood:
    """The log-likelihood of ``published``: a value stays as it was with the probability that its noise falls out."""
    std, low, high = cells.std(axis=0), cells.min(axis=0), cells.max(axis=0)

    def likelihood(seen: np.ndarray, rows: np.ndarray, other: np.ndarray) -> np.ndarray:
        scale = np.maximum(noise_scale * np.where(other == rows, std, np.abs(other - rows)), SAME)
        stays = (np.exp((low - rows) / scale) + np.exp((rows - high) / scale)) / 2
        away = np.abs(seen - rows)
        density = np.exp(-away / scale) / (2 * scale) + np.where(away < SAME, stays / (2 * SAME), 0.0)
        return np.log(np.maximum(density, NOTHING)).sum(axis=-1)

    return likelihood


def equal_cells(seen: np.ndarray, rows: np.ndarray, other: np.ndarray) -> np.ndarray:
    """In the place of a likelihood: the number of cells that a protected row has in common with each row."""
    del other
    return (seen == rows).sum(axis=-1).astype(float)


def scores(rows: Rows, moved: Moved, test: Rows, scale: float) -> dict[str, float]:
    """What the report of attacks has, by its words, beside the accuracy."""
    report = attack_report(rows.cells, rows.labels, moved, noise_scale=scale, neighbours=NEIGHBOURS, fewest=FEWEST)
    found = {str(row[0]): float(row[1]) for part in report for row in part.rows}
    found["best attack"] = max(float(row[1]) for row in report[0].rows)
    return {"accuracy": accuracy(moved.cells, moved.labels, test), **found, **copies(moved.cells, rows, test)}


def published_scores(rows: Rows, moved: Moved, test: Rows, scale: float) -> dict[str, float]:
    """``scores``, and the attacks that know the published rule."""
    found = scores(rows, moved, test, scale)
    near = near_rows(rows.cells, rows.labels, NEIGHBOURS)
    for name, likelihood in (
        ("most equal cells of the same label", equal_cells),
        ("most likely row, by the noise of the published rule", published_likelihood(rows.cells, scale)),
    ):
        found[name] = linked_by_likelihood(rows.cells, rows.labels, moved, near, likelihood)
    best = max(found[name] for name in found if name.startswith(("most ", "best ")))
    return {**found, "best attack": best}


def private_scores(rows: Rows, cells: np.ndarray, labels: np.ndarray, test: Rows) -> dict[str, float]:
    """Of rows that are made of no row: how many of their cells are those of the nearest original."""
    near = NearestNeighbors(n_neighbors=1).fit(rows.cells).kneighbors(cells, return_distance=False)[:, 0]
    same = np.abs(cells - rows.cells[near]) < SAME
    return {
        "accuracy": accuracy(cells, labels, test),
        "cells equal to the nearest original": float(same.mean()),
        "cells equal to the nearest original, and not 0": float((same & (rows.cells[near] > 0)).mean()),
        "labels drawn": len(np.unique(labels)),
        **copies(cells, rows, test),
    }


def accuracy(cells: np.ndarray, labels: np.ndarray, test: Rows) -> float:
    model = LogisticRegression(max_iter=1000).fit(cells, labels)
    return float(model.score(test.cells, test.labels))


def copies(cells: np.ndarray, rows: Rows, test: Rows) -> dict[str, float]:
    space, _ = copying(cells, rows.cells, test.cells)
    return {"nearer to an original than expected, z": space.z, "near-duplicates": space.near_duplicates}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    digits = load_digits()
    record = {**provenance(), "runs": {}}
    for seed in range(args.runs):
        order = np.random.default_rng(seed).permutation(len(digits.target))
        cut = len(order) * 4 // 5
        rows, test = (table(digits.data[part], digits.target[part]) for part in (order[:cut], order[cut:]))
        found = {"originals": {"accuracy": accuracy(rows.cells, rows.labels, test)}}
        for scale in SCALES:
            kept = in_random_order(published(rows.cells, rows.labels, scale, seed), rows.labels, seed)
            found[f"published rule, scale {scale:g}"] = published_scores(rows, kept, test, scale)
            cells = smote(rows.cells, rows.labels, noise_scale=scale, neighbours=NEIGHBOURS, seed=seed)
            found[f"smote, scale {scale:g}"] = scores(rows, in_random_order(cells, rows.labels, seed), test, scale)
        for epsilon in EPSILONS:
            centres = fit_centres(rows, epsilon=epsilon)
            cells, labels = centres.sample(len(rows.cells), seed)
            found[f"private centres, epsilon {epsilon:g}"] = {
                "epsilon": centres.epsilon, **private_scores(rows, cells, labels, test)
            }  # fmt: skip
        for name, values in found.items():
            record["runs"].setdefault(name, []).append(values)
    for name, values in record["runs"].items():
        means = {key: float(np.mean([v[key] for v in values])) for key in values[0]}
        print(f"| {name} | {', '.join(f'{key} {value:.3g}' for key, value in means.items())} |")
    Path(args.out).write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
