"""What a given number of persons can buy: the same pictures with one image, and with one person, as the unit.

    python benchmarks/persons.py --malaria=malaria.zip --groups=malaria_groups.csv --out=benchmarks/results/persons.json

Pictures of cells of 200 patients, most of them with more than a hundred, divided by patient: the classifier is tested
on cells of patients of whom the generator saw nothing. configs/folder_cells.py at several epsilons (delta 1e-5), with
one Gaussian for each class where the unit is a person. 20,000 samples a run, 10,000 of them for FID, precision and
recall. Interrupted, the same command goes on where it was. About a minute a run on 2 CPU cores.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import quality
from provenance import provenance

from efsgd_jax import load_dataset

CONFIG = "configs/folder_cells.py"
EPSILONS = ("1", "3", "10", "30", "100", "inf")
# One Gaussian in few directions: more are lost in the noise.
FEW = ["method.components=1", "method.directions=30"]
VARIANTS = {
    **{f"an image, {e}": (0, [f"privacy.epsilon={e}"]) for e in EPSILONS},
    **{f"a person, {e}": (16, [f"privacy.epsilon={e}", *FEW]) for e in EPSILONS},
    **{f"a person, 10, {m} images each": (m, ["privacy.epsilon=10", *FEW]) for m in (1, 4, 64)},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--malaria", required=True, help="a .zip of class folders")
    parser.add_argument("--groups", required=True, help="the list of patients, a .csv file")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--variants", default=";".join(VARIANTS), help="separated by ;")
    parser.add_argument("--grids", default="", help="directory for a grid of each variant's images")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out = Path(args.out)
    record = quality.results_in(out, held_out=False)
    quality.SAMPLES["malaria"] = 20_000
    with tempfile.TemporaryDirectory() as directory:
        whole = load_dataset("folder", path=args.malaria, image_size=32, channels=3, groups=args.groups)
        assert whole.train_groups is not None
        record["persons"] = {"training": whole.num_units, "training images": len(whole.train_labels)}
        by_image = Path(directory) / "images.npz"
        np.savez(
            by_image,
            x_train=whole.train_images,
            y_train=whole.train_labels,
            x_test=whole.test_images,
            y_test=whole.test_labels,
            class_names=np.array(whole.class_names),
        )
        for variant in args.variants.split(";"):
            most, assignments = VARIANTS[variant]
            data = ["data.name=npz", f"data.path={by_image}"]
            if most:  # the same patients are held out, since the hash of a patient's name decides
                data = [f"data.path={args.malaria}", f"data.groups={args.groups}", f"data.images_per_group={most}"]
            done = record["runs"].setdefault(variant, [])
            while len(done) < args.runs:
                workdir = Path(directory) / f"{variant}_{len(done)}"
                scores = quality.run("malaria", CONFIG, [*data, *assignments], workdir, ("utility", "fidelity"))
                done.append({**scores, **provenance()})
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(record, indent=1) + "\n")
                if args.grids:
                    Path(args.grids).mkdir(parents=True, exist_ok=True)
                    name = variant.replace(",", "").replace(" ", "_")
                    shutil.copy(workdir / "samples/grid.png", Path(args.grids) / f"{name}.png")
            print(quality.to_table(record["runs"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
