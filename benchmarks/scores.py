"""The scores themselves, on images of which the right answer is known: real ones. Seconds of each evaluation.

    python benchmarks/scores.py --config.data.path=mnist.npz --out=benchmarks/results/scores.json

The data set's test images as if they were generated (held out: no copies), 10,000 training images (all copies), and
the whole training part (gen2real then is the CNN's own accuracy). The first evaluation has all default scores and
starts with an empty cache; it is repeated with what it left there. About 6 minutes on 2 CPU cores.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance
from timing import write_record

from efsgd_jax import Dataset, UserError, evaluate_samples
from efsgd_jax.cli.parser import read_config, split_overrides
from efsgd_jax.evaluation.metrics import to_json, to_table
from efsgd_jax.training.setup import dataset_of


def evaluations(data: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Images, labels and the options of ``evaluate_samples``."""
    rows = np.random.default_rng(0).permutation(len(data.train_labels))[:10_000]
    train, test = (data.train_images, data.train_labels), (data.test_images, data.test_labels)
    return {
        "held-out images": (*test, {}),
        "held-out images, again": (*test, {}),
        "training images": (train[0][rows], train[1][rows], {"metrics": ("fidelity", "copying")}),
        "all training images": (*train, {"metrics": ("utility",), "classifiers": ("cnn",), "classifier_seeds": 3}),
    }


def main() -> int:
    overrides, rest = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/mnist.py", help="the config whose data is used")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args(rest)
    found = {}
    try:
        config = read_config(args.config, overrides)
        data = dataset_of(config)
        with tempfile.TemporaryDirectory() as directory:
            os.environ["EFSGD_JAX_DATA"] = directory
            for name, (images, labels, options) in evaluations(data).items():
                file = Path(directory) / "samples.npz"
                np.savez(file, x_train=images, y_train=labels)
                start = time.perf_counter()
                scores = evaluate_samples(file, config, progress=True, **options)
                seconds = round(time.perf_counter() - start, 1)
                print(f"\n{name}: {seconds} s\n{to_table(scores)}", flush=True)
                found[name] = {"seconds": seconds, **to_json(scores)}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_record(args.out, {**provenance(), "evaluations": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
