"""Pictures in colour, with and without a warm start on public images: gen2real by the `dpac` CNN, FID and recall.

    efsgd pretrain --config=configs/folder_public.py --config.public.path=cifar100.zip --out=public.msgpack
    python benchmarks/public.py --weights=public.msgpack --runs=3 --out=benchmarks/results/public.json \\
        "--data=eurosat=eurosat.zip;malaria=malaria.zip;cifar10=cifar10.zip"
    python benchmarks/public.py --config=configs/folder.py "--data=cifar10=cifar10.zip" --runs=3 --out=FILE

60,000 samples a run, 10,000 of them for FID, precision and recall over the features of that CNN trained on real images.
With --held_out a tenth of the training split takes the place of the test split. --option="NAME: KEY=VALUE ..." measures
the config with other values. Interrupted, the same command goes on where it was.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import quality
from held_out import without_test_split
from provenance import provenance

CONFIG = "configs/folder_public.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="NAME=PATH of each data set, separated by ;")
    parser.add_argument("--weights", default="", help="file that efsgd pretrain wrote, for folder_public")
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--epsilon", default="10")
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--option", default="", help="NAME: KEY=VALUE ..., in the place of the config's values")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--grids", default="", help="directory for a grid of each data set's images")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out = Path(args.out)
    record = quality.results_in(out, held_out=args.held_out)
    option, _, assignments = args.option.partition(":")
    for source in args.data.split(";"):
        name, _, path = source.partition("=")
        own = "" if args.config == CONFIG else f", {Path(args.config).stem}"
        variant = f"{name} {args.epsilon}{own}" + (f", {option}" if option else "")
        quality.SAMPLES[name] = args.samples
        done = record["runs"].setdefault(variant, [])
        while len(done) < args.runs:
            with tempfile.TemporaryDirectory() as directory:
                data = [f"data.path={path}"]
                if args.held_out:
                    other = without_test_split(path, "folder", Path(directory), image_size=32, channels=3)
                    data = ["data.name=npz", f"data.path={other}"]
                asked = [*data, f"privacy.epsilon={args.epsilon}"]
                asked += [f"public.weights={args.weights}"] if args.weights else []
                workdir = Path(directory) / "run"
                scores = quality.run(
                    name, args.config, [*asked, *assignments.split()], workdir, ("utility", "fidelity")
                )
                done.append({**scores, **provenance()})
                if args.grids:
                    Path(args.grids).mkdir(parents=True, exist_ok=True)
                    shutil.copy(
                        workdir / "samples/grid.png",
                        Path(args.grids) / f"{variant.replace(',', '').replace(' ', '_')}.png",
                    )
            out.write_text(json.dumps(record, indent=1) + "\n")
        print(quality.to_table(record["runs"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
