"""The re-ranking classifiers on real images, alone: accuracy of each for a whole budget, and for a part of one.

    python benchmarks/private_classifiers.py --mnist=mnist.npz --fashion_mnist=fashion_mnist.npz \\
        --out=benchmarks/results/private_classifiers.json

Ridge regression on random features of pixels is the predictor of arXiv 2412.04785 with a worst-case guarantee; on
oriented gradients, and logistic regression on these, are what generators use. delta is 1e-5. With --held_out the last
tenth of the training split takes the place of the test split. --set changes options. A quarter of an hour on 2 CPU
cores. Every run draws its own keys from the system's entropy.
"""

import argparse
import dataclasses
import json
import math
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ablation import spread
from held_out import without_test_split
from provenance import provenance

from efsgd_jax import fresh_key, load_dataset
from efsgd_jax.data import ImageSpec
from efsgd_jax.privacy import FullBatchMechanism, PlannedPhase, calibrate_mechanism
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.reranking import RerankerOptions, reranker_of, steps_of
from efsgd_jax.training.views import view_all

DELTA = 1e-5
EPSILONS = (1.0, 10.0, math.inf)
SHARES = (1.0, 0.1)
CLASSIFIERS = {
    "ridge, random features of pixels": {"reranker": "random_features", "random_input": "pixels"},
    "ridge, random features of oriented gradients": {"reranker": "random_features"},
    "logistic, oriented gradients": {"reranker_steps": 30, "reranker_learning_rate": 7.0},
    "logistic, oriented gradients, 120 steps": {"reranker_steps": 120, "reranker_learning_rate": 15.0},
}


def trained(options: RerankerOptions, spec: ImageSpec, records: Record, epsilon: float, share: float) -> jax.Array:
    """The classifier's released weights, for a share of a budget that one release would spend."""
    count, steps = len(records.label), steps_of(options)
    whole = FullBatchMechanism(count, 0.0)
    noise = calibrate_mechanism(whole, 1, epsilon, DELTA).noise_multiplier if epsilon < math.inf else 0.0
    phase = reranker_of(options).phase(
        spec, PlannedPhase("reranker", FullBatchMechanism(count, noise, share, steps), steps)
    )
    rows = view_all(phase.view, records, {})
    state, key = phase.init(jax.random.key(0), {}), fresh_key()
    mechanism = phase.plan.mechanism

    @jax.jit
    def step(state, rows, key, t):
        return phase.step(state, mechanism.open(rows, key, t, released={}), key)[0]

    for t in range(steps):
        state = step(state, rows, jax.random.fold_in(key, t), jnp.int32(t))
    return phase.release(state)


def scores(options: RerankerOptions, weights: jax.Array, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, and the mean of minus the log-probability of the right class."""
    made = reranker_of(options)
    found = jax.jit(lambda x: made.log_probabilities(weights, made.features(x.astype(jnp.float32) / 255)))
    logs = np.concatenate([np.asarray(found(images[i : i + 1000])) for i in range(0, len(images), 1000)])
    return {
        "accuracy": float(np.mean(np.argmax(logs, 1) == labels)),
        "log_loss": float(-np.mean(logs[np.arange(len(labels)), labels])),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", default="", help="the .npz file")
    parser.add_argument("--fashion_mnist", default="", help="the .npz file")
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--classifiers", default=";".join(CLASSIFIERS), help="separated by ;")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of every classifier")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    types = {field.name: type(field.default) for field in dataclasses.fields(RerankerOptions)}
    assigned = {key: types[key](value) for key, value in (text.split("=") for text in args.set)}
    record = {"held_out": args.held_out, "set": args.set, **provenance(), "runs": {}}
    for name, source in (("mnist", args.mnist), ("fashion_mnist", args.fashion_mnist)):
        if not source:
            continue
        with tempfile.TemporaryDirectory() as directory:
            path = without_test_split(source, name, Path(directory)) if args.held_out else source
            data = load_dataset("npz" if args.held_out else name, path=str(path))
        records = Record(jnp.asarray(data.train_images), jnp.asarray(data.train_labels))
        for epsilon in EPSILONS:
            for share in SHARES if epsilon < math.inf else (1.0,):
                for classifier in args.classifiers.split(";"):
                    options = RerankerOptions(**(CLASSIFIERS[classifier] | assigned))
                    found = [
                        scores(
                            options,
                            trained(options, data.spec, records, epsilon, share),
                            data.test_images,
                            data.test_labels,
                        )
                        for _ in range(args.runs)
                    ]
                    row = f"{name}, epsilon {epsilon:g}, share {share:g}, {classifier}"
                    record["runs"][row] = found
                    accuracy = spread([100 * one["accuracy"] for one in found])
                    loss = spread([one["log_loss"] for one in found], digits=2)
                    print(f"| {row} | {accuracy} | {loss} |", flush=True)
                    Path(args.out).write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
