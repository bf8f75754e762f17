"""``efsgd protect confound`` on CIFAR-10: what a CNN learns from protected images, before and after each attack.

    python benchmarks/protect_confound.py --cifar10=cifar10.zip --out=benchmarks/results/protect_confound.json \\
        --pictures=benchmarks/results/protect

Each seed chooses other images, and every network begins elsewhere. Seeds that the file has already are kept, so that
the command may be interrupted between two of them. Five minutes for each on 2 CPU cores.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from ablation import spread
from provenance import provenance

from efsgd_jax.images import save_grid
from efsgd_jax.protect.confound_run import Confounded, Options, confound
from efsgd_jax.protect.sources import Labelled, images_to_protect, read_images

SHOWN, ENLARGED = 5, 3


def compared(clean: Labelled, protected: np.ndarray) -> np.ndarray:
    """Rows of originals, of their protected forms, and of eight times the difference, an image of each class."""
    rows = [np.flatnonzero(clean.labels == label)[0] for label in np.unique(clean.labels)[: 2 * SHOWN]]
    before, after = clean.images[rows].astype(int), protected[rows].astype(int)
    difference = np.clip(128 + 8 * (after - before), 0, 255)
    lines = [np.concatenate(list(images), axis=1) for images in (before, after, difference)]
    sheet = np.concatenate(lines).astype(np.uint8)
    return sheet.repeat(ENLARGED, axis=0).repeat(ENLARGED, axis=1)


def found(made: Confounded) -> dict[str, object]:
    return {
        "images": len(made.images), "radius": made.radius, "largest": made.largest, "psnr": made.psnr,
        "used": made.candidates[0].name,
        "noises": {x.name: {"chosen by": x.chosen_by, "accuracy": x.accuracy} for x in made.candidates},
        "attacks": {row.attack: {"protected": row.protected, "unprotected": row.unprotected} for row in made.rows},
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", required=True, help="the archive, or a directory of class folders")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--max_change", type=int, default=0)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--pictures", default="", help="directory for a picture of the first seed")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    data, path = read_images(args.cifar10), Path(args.out)
    record = {"runs": json.loads(path.read_text())["runs"] if path.is_file() else {}}
    for seed in args.seeds.split(","):
        if seed in record["runs"]:
            continue
        chosen = images_to_protect(data, args.n, int(seed))
        test = Labelled(data.test_images, data.test_labels)
        options = Options(args.max_change, int(seed))
        made = confound(chosen, test, len(data.class_names), options, say=lambda line: print(line, flush=True))
        record["runs"][seed] = {**found(made), **provenance()}
        path.write_text(json.dumps(record, indent=1) + "\n")
        if args.pictures:
            Path(args.pictures).mkdir(exist_ok=True)
            save_grid(Path(args.pictures) / "confound.png", compared(chosen.train, made.images))
            args.pictures = ""
    runs = list(record["runs"].values())
    for attack in runs[0]["attacks"]:
        columns = [spread([100 * run["attacks"][attack][x] for run in runs]) for x in ("protected", "unprotected")]
        print(f"| {attack} | {' | '.join(columns)} |")
    for noise in runs[0]["noises"]:
        print(f"| {noise} | {spread([100 * run['noises'][noise]['accuracy'] for run in runs])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
