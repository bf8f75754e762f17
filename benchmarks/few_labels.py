"""What images without labels are worth to pate_triple_gan, and what its discriminators are.

    python benchmarks/few_labels.py --fashion_mnist=fashion_mnist.npz --runs=3 --out=benchmarks/results/few_labels.json

configs/pate_fmnist.py, which reads about 2,000 labels; the same without discriminators; and with labelled images alone,
that is with 2,000 images in all. For each: accuracy of the released classifier on real images that it has not seen, and
the scores of 60,000 generated images. With --held_out the last tenth of the training split takes the place of the test
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
import quality
from ablation import spread
from held_out import first_images, without_test_split
from provenance import provenance

from efsgd_jax import load_dataset
from efsgd_jax.runs.released import released_generator
from efsgd_jax.runs.workdir import Workdir
from efsgd_jax.synthesizers.pate_triple_gan.classifier import Classifier, logits
from efsgd_jax.synthesizers.reranking.oriented_gradients import features_of

CONFIG, LABELLED = "configs/pate_fmnist.py", 2000
VARIANTS = {
    "2,000 labels, 60,000 images": (0, []),
    "the same without discriminators": (0, ["method.discriminator_share=0"]),
    "labelled images alone": (LABELLED, ["method.labelled=1"]),
    "labelled images alone, without discriminators": (LABELLED, ["method.labelled=1", "method.discriminator_share=0"]),
}


def classifier_accuracy(run: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of the classifier that a run published, on uint8 images ``[N, S, S, C]``."""
    classifier = Classifier(**released_generator(Workdir(run)).params["classifier"])
    found = jax.jit(lambda x: jnp.argmax(logits(classifier, features_of(x.astype(jnp.float32) / 255)), axis=1))
    given = [np.asarray(found(images[i : i + 1000])) for i in range(0, len(images), 1000)]
    return float(np.mean(np.concatenate(given) == labels))


def to_table(runs: dict[str, list[dict]]) -> str:
    """One row for each variant."""
    lines = [
        "| learns from | runs | classifier | gen2real CNN | FID | precision, recall | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in runs.items():
        if rows:
            classifier = spread([100 * row["classifier"] for row in rows])
            cells = quality.to_table({name: rows}).splitlines()[-1].split(" | ")
            lines.append(" | ".join([*cells[:2], classifier, *cells[3:]]))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion_mnist", required=True, help="the .npz file")
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--variants", default=";".join(VARIANTS), help="separated by ;")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of every variant")
    parser.add_argument("--grids", default="", help="directory for a grid of each variant's images")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out = Path(args.out)
    record = quality.results_in(out, held_out=args.held_out)
    name = "fashion_mnist"
    with tempfile.TemporaryDirectory() as directory:
        whole, kind = args.fashion_mnist, name
        if args.held_out:
            whole, kind = str(without_test_split(whole, name, Path(directory))), "npz"
        for variant in args.variants.split(";"):
            count, assignments = VARIANTS[variant]
            done = record["runs"].setdefault(" ".join([variant, *args.set]), [])
            while len(done) < args.runs:
                data = [f"data.name={kind}", f"data.path={whole}"]
                if count:
                    data = ["data.name=npz", f"data.path={first_images(whole, kind, count, Path(directory))}"]
                workdir = Path(directory) / f"run_{len(done)}_{count}"
                shutil.rmtree(workdir, ignore_errors=True)
                given = [*data, *assignments, *args.set]
                scores = quality.run(name, CONFIG, given, workdir, ("utility", "fidelity"))
                real = load_dataset(kind, path=whole)
                found = classifier_accuracy(workdir, real.test_images, real.test_labels)
                done.append({"classifier": found, **scores, **provenance()})
                out.write_text(json.dumps(record, indent=1) + "\n")
                if args.grids:
                    Path(args.grids).mkdir(parents=True, exist_ok=True)
                    file = variant.replace(",", "").replace(" ", "_")
                    shutil.copy(workdir / "samples/grid.png", Path(args.grids) / f"{file}.png")
            print(to_table(record["runs"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
