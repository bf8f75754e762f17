"""private_diffusion on an accelerator: one data set at one epsilon, trained, drawn and scored in a few minutes.

    python benchmarks/gpu_images.py --data=fashion_mnist=fashion_mnist.npz --epsilon=10 --out=gpu_results/images

The config of two CPU cores with a larger network, larger batches and more draws of noise for each image. Results are
written as they come: the run directory first, which the same command continues if it was interrupted; then a grid,
images of at most 16 MB, and scores.json. --tiny tries the whole flow on the bundled digits, on any machine.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import quality
from held_out import without_test_split
from provenance import provenance

# Sizes are multiples of 64, which an accelerator's matrix units like. Without a look at one, they are chosen by an
# estimate: 6.5 million evaluations of 1.4 billion operations, forwards and backwards.
LARGE = {
    "method.width": 128,
    "method.blocks": 4,
    "method.draws": 4,
    "method.compute_dtype": "bfloat16",
    "method.microbatch_size": 512,
    "method.reranker_share": 0.06,
    "train.expected_batch_size": 4096,
    "train.steps": 400,
}
TINY = {
    "data.name": "digits",
    "method.components": 1,
    "method.directions": 8,
    "method.mean_clip": 5,
    "method.deviation_clip": 3,
    "method.pose_weight": 0,
    "method.reranker_steps": 5,
    "method.width": 8,
    "method.blocks": 1,
    "method.draws": 2,
    "method.compute_dtype": "bfloat16",
    "method.sampling_steps": 4,
    "train.expected_batch_size": 64,
    "train.steps": 3,
}
# At most 16 MB a file.
MAX_BYTES = 16_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="NAME=PATH: mnist or fashion_mnist, and the .npz file")
    parser.add_argument("--epsilon", default="10")
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--option", default="", help="KEY=VALUE ..., in the place of these values")
    parser.add_argument("--tiny", action="store_true", help="try the flow on the bundled digits")
    parser.add_argument("--out", required=True, help="directory of results")
    args = parser.parse_args()
    name, _, path = args.data.partition("=")
    if not args.tiny and name not in ("mnist", "fashion_mnist"):
        parser.error("--data needs mnist=FILE.npz or fashion_mnist=FILE.npz")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "run/samples", ignore_errors=True)  # of the same command before; training is continued
    with tempfile.TemporaryDirectory() as directory:
        if args.tiny:
            name, values = "digits", TINY
        else:
            data = {"data.name": name, "data.path": path}
            if args.held_out:
                data = {"data.name": "npz", "data.path": without_test_split(path, name, Path(directory))}
            values = {**data, **LARGE}
        asked = [f"{key}={value}" for key, value in {**values, "privacy.epsilon": args.epsilon}.items()]
        scores = quality.run(
            name,
            "configs/diffusion_fmnist.py",
            [*asked, *args.option.split()],
            out / "run",
            ("utility",) if args.tiny else ("utility", "fidelity"),
        )
    shutil.copy(out / "run/samples/grid.png", out / "grid.png")
    with np.load(out / "run/samples/samples.npz") as samples:
        images, labels = samples["x_train"], samples["y_train"]
    kept = min(len(images), MAX_BYTES // images[0].nbytes - 100)
    np.savez(out / "samples.npz", x_train=images[:kept], y_train=labels[:kept])
    record = {"data": name, "held_out": args.held_out, "tiny": args.tiny, "asked": asked, **scores, **provenance()}
    (out / "scores.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(scores, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
