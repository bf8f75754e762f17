"""Anonymised digits of MNIST: who recognises the originals in them, for several shares of the code that noise leaves.

    python benchmarks/protect_anonymise.py --mnist=mnist.npz --out=benchmarks/results/protect_anonymise.json

trains a generator by configs/mixture_mnist.py at epsilon 10, then runs ``efsgd protect anonymise`` on 500 images with
the seeds named, and with the first of them for other values of ``--keep`` and without a search. With --picture, a grid
of originals above the anonymised images of the first seed is written. Interrupted, the same command goes on where it
was, with a new generator. Two to three minutes a run on 2 CPU cores.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from provenance import provenance

from efsgd_jax import load_config, load_dataset
from efsgd_jax.images import save_grid
from efsgd_jax.protect.anonymise import Search
from efsgd_jax.protect.anonymise_run import Outcome, anonymise_images, latent_for
from efsgd_jax.protect.latent import latent_of
from efsgd_jax.runs.fit import fit

ROOT = Path(__file__).parents[1]
# Beside the defaults.
VARIANTS = {
    "keep 1, the search alone": Search(keep=1.0),
    "keep 0.6": Search(keep=0.6),
    "keep 0.2, no search": Search(steps=0),
}
DEFAULT = "keep 0.2"
ROWS = 3


def scores(outcome: Outcome) -> dict:
    kinds = {"cosine": outcome.cosines, "correlation": outcome.correlations, "class_kept": outcome.class_kept}
    names = ("copies", "fresh", "anonymised", "in_class")
    return {
        **{name: shares._asdict() for name, shares in kinds.items()},
        "recognised": {name: dict(zip(names, row, strict=True)) for name, row in outcome.recognised.items()},
    }


def picture(outcome: Outcome, path: Path) -> None:
    """``ROWS`` rows of one image of each class, each above its anonymised one."""
    labels, bands = outcome.originals.labels, []
    for k in range(ROWS):
        rows = [np.flatnonzero(labels == y)[k] for y in range(10)]
        bands += [np.concatenate(list(x[rows]), axis=1) for x in (outcome.originals.images, outcome.images)]
        bands.append(np.full((3, *bands[0].shape[1:]), 128, np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_grid(path, np.concatenate(bands[:-1]))


def to_table(runs: dict[str, list[dict]]) -> str:
    """One row for each variant, with means over its runs."""
    attacks = list(next(iter(runs.values()))[0]["recognised"])
    lines = [
        f"| | runs | cosine | correlation | class kept | {' | '.join(attacks)} |",
        "|---" * (5 + len(attacks)) + "|",
    ]

    def row(name: str, count: int, aims: list[float], shares: list[float]) -> str:
        shown = [f"{aims[0]:.2f}", f"{aims[1]:.2f}", *(f"{x:.1%}" for x in (aims[2], *shares))]
        return f"| {name} | {count} | {' | '.join(shown)} |"

    aims = ("cosine", "correlation", "class_kept")
    every = [run for found in runs.values() for run in found]
    for kind, title in (("copies", "another copy of the original"), ("fresh", "an image made without it")):
        of_kind = [float(np.mean([run[aim][kind] for run in every])) for aim in aims]
        lines.append(
            row(title, len(every), of_kind, [np.mean([r["recognised"][a][kind] for r in every]) for a in attacks])
        )
    for name, found in runs.items():
        of_kind = [float(np.mean([run[aim]["anonymised"] for run in found])) for aim in aims]
        shares = [np.mean([run["recognised"][a]["anonymised"] for run in found]) for a in attacks]
        lines.append(row(name, len(found), of_kind, shares))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="the .npz file")
    parser.add_argument("--generator", help="a finished run; one is trained if not given")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--variants", default=";".join(VARIANTS), help="other searches of the first seed, separated by ;"
    )
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--picture", help="a PNG file")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out, seeds = Path(args.out), [int(seed) for seed in args.seeds.split(",")]
    record = json.loads(out.read_text()) if out.is_file() else {"images": args.n, "runs": {}}
    data = load_dataset("mnist", path=args.mnist)
    with tempfile.TemporaryDirectory() as directory:
        run = args.generator or str(Path(directory) / "run")
        if not args.generator:
            config = load_config(ROOT / "configs/mixture_mnist.py")
            config.data.path = args.mnist
            fit(config, run, progress=False)
        latent = latent_for(data, latent_of(run), run)
        jobs = [(DEFAULT, Search(), seed) for seed in seeds]
        jobs += [(name, VARIANTS[name], seeds[0]) for name in args.variants.split(";") if name]
        for i, (name, search, seed) in enumerate(jobs):
            done = record["runs"].setdefault(name, [])
            if any(row["seed"] == seed for row in done):
                continue
            start = time.monotonic()
            place = Path(directory) / f"out_{i}"
            outcome = anonymise_images(data, latent, place, n=args.n, seed=seed, search=search)
            done.append({"seed": seed, "seconds": round(time.monotonic() - start), **scores(outcome), **provenance()})
            out.write_text(json.dumps(record, indent=1) + "\n")
            if args.picture and i == 0:
                picture(outcome, Path(args.picture))
            print(name, seed, json.dumps(done[-1]), flush=True)
    print(to_table({name: found for name, found in record["runs"].items() if found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
