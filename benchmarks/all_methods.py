"""Every method of the library on MNIST and Fashion-MNIST at epsilon 1 and 10: one machine, one table.

    python benchmarks/all_methods.py --mnist=mnist.npz --fashion_mnist=fashion_mnist.npz --eurosat=eurosat.zip \\
        --weights=public.msgpack --out=benchmarks/results/all_methods.json --grids=benchmarks/results/all_methods

For each run: epsilon by PLD at delta 1e-5, gen2real accuracy of the `dpac` CNN trained on 60,000 samples; FID,
precision and recall of 10,000 of them over the features of that CNN trained on real images; seconds of training and
drawing, and the largest resident memory of the process. Each run is a process of its own and draws its own keys from
the system's entropy. Interrupted, the same command goes on where it was; --variants and --runs of a later one may be
others. With --held_out the last tenth of the training split takes the place of the test split. On EuroSAT in colour,
32x32, only the best four, each on a mixture of codes of a public autoencoder: --weights is the file that
`efsgd pretrain --config=configs/folder_public.py --config.public.path=PUBLIC.zip --out=public.msgpack` wrote.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ablation import spread
from held_out import without_test_split
from provenance import provenance
from quality import VARIANTS, results_in, run

METHODS = {
    "gaussian_mixture": "",
    "efsgd_mixture": ", efsgd_mixture",
    "private_diffusion": ", private_diffusion",
    "pearl": ", pearl",
    "DP-MERF": ", DP-MERF",
    "pearl from a mixture": ", pearl from a mixture",
    "p3gm": ", p3gm",
    "p3gm's mixture": ", p3gm's mixture",
    "distilled_set": ", distilled_set",
    "pate_triple_gan, 2,000 labels": ", pate_triple_gan",
    "born_machine, 14x14": ", born_machine",
    "efsgd_gan": ", efsgd_gan",
    "sanitized_gan (DP-GAN-DPAC)": ", DP-GAN-DPAC",
}
DATA = ("mnist", "fashion_mnist")
EPSILONS = ("1", "10")
# The mixture of configs/folder_public.py, and networks that are trained by DP-SGD on top of it.
CODES = "method.autoencoder_width=64 method.directions=120 method.components=8 method.candidates=1"
NETWORK = (
    f"{CODES} method.mixture_share=0.6 privacy.feedback=local privacy.feedback_l2_norm_clip=0.3 "
    "train.steps=100 train.expected_batch_size=1024"
)
EUROSAT = {
    "gaussian_mixture": f"{CODES} method.align_lines=True",
    "efsgd_mixture": NETWORK,
    "private_diffusion": NETWORK,
    "p3gm": NETWORK,
}


def rows() -> dict[str, tuple[str, str, list[str]]]:
    """Name of a row -> data set, config, assignments."""
    found = {
        f"{data} {epsilon}, {method}": VARIANTS[f"{data} {epsilon}{suffix}"]
        for data in DATA
        for epsilon in EPSILONS
        for method, suffix in METHODS.items()
        if f"{data} {epsilon}{suffix}" in VARIANTS
    }
    for epsilon in EPSILONS:
        for method, options in EUROSAT.items():
            asked = [f"method.name={method}", f"privacy.epsilon={epsilon}", *options.split()]
            found[f"eurosat {epsilon}, {method}"] = ("eurosat", "configs/folder_public.py", asked)
    return found


ROWS = rows()


def one(row: str, source: str, weights: str, held_out: bool, grid: str) -> dict:
    """Trains, draws and scores one run, in this process."""
    name, config, assignments = ROWS[row]
    folder = name == "eurosat"
    with tempfile.TemporaryDirectory() as directory:
        data = [f"data.path={source}"]
        if held_out:
            options = {"image_size": 32, "channels": 3} if folder else {}
            path = without_test_split(source, "folder" if folder else name, Path(directory), **options)
            data = ["data.name=npz", f"data.path={path}"]
        if folder:
            data.append(f"public.weights={weights}")
        found = run(name, config, [*data, *assignments], Path(directory) / "run", ("utility", "fidelity"))
        if grid:
            Path(grid).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(directory) / "run/samples/grid.png", grid)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**found, "largest_memory_gib": round(most, 2), **provenance()}


def to_table(runs: dict[str, list[dict]]) -> str:
    """One row for each data set, epsilon and method."""
    lines = [
        "| data, epsilon, method | runs | gen2real CNN | FID | precision, recall | seconds | GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in runs.items():
        if rows:
            accuracy = spread([100 * r["gen2real_cnn"] for r in rows])
            seconds = spread([r["train_seconds"] + r["draw_seconds"] for r in rows], digits=0)
            shares = ", ".join(f"{sum(r[k] for r in rows) / len(rows):.2f}" for k in ("precision", "recall"))
            memory = max(r["largest_memory_gib"] for r in rows)
            fid = spread([r["fid"] for r in rows])
            lines.append(f"| {name} | {len(rows)} | {accuracy} | {fid} | {shares} | {seconds} | {memory:.1f} |")
    return "\n".join(lines)


def page(runs: dict[str, list[dict]], epsilon: str, names: Sequence[str] = DATA) -> str:
    """The table of the page for one epsilon: a row for each method, and the columns of each data set side by side."""
    columns = ("gen2real CNN", "FID", "recall", "seconds", "GiB")
    lines = [
        f"| epsilon {epsilon} | {' | '.join(f'{name}: {column}' for name in names for column in columns)} |",
        "|---" * (1 + len(names) * len(columns)) + "|",
    ]
    for method in (*METHODS, *(m for m in EUROSAT if m not in METHODS)):
        found = [runs.get(f"{name} {epsilon}, {method}", []) for name in names]
        if any(found):
            lines.append(f"| {method} | {' | '.join(cells(rows) for rows in found)} |")
    return "\n".join(lines)


def cells(rows: list[dict]) -> str:
    """The cells of one data set: means, standard deviations of several runs, seconds of the fastest, largest memory."""
    if not rows:
        return " | " * 4
    seconds = min(r["train_seconds"] + r["draw_seconds"] for r in rows)
    memory = max((r["largest_memory_gib"] for r in rows if "largest_memory_gib" in r), default=None)
    recall = f"{sum(r['recall'] for r in rows) / len(rows):.2f}"
    accuracy, fid = spread([100 * r["gen2real_cnn"] for r in rows]), spread([r["fid"] for r in rows])
    return " | ".join([accuracy, fid, recall, f"{seconds:.0f}", "" if memory is None else f"{memory:.1f}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", default="", help="the .npz file")
    parser.add_argument("--fashion_mnist", default="", help="the .npz file")
    parser.add_argument("--eurosat", default="", help="the .zip of class folders; without it, no rows of EuroSAT")
    parser.add_argument("--weights", default="", help="file that efsgd pretrain wrote, for EuroSAT")
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--variants", default="", help="separated by ;")
    parser.add_argument("--grids", default="", help="directory for a grid of each row's images")
    parser.add_argument("--page", action="store_true", help="only print the tables of docs/results/all_methods.md")
    parser.add_argument("--also", default="", help="with --page: another file of results, of rows that --out lacks")
    parser.add_argument("--out", required=True, help="JSON file of results")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)  # the process of one run, and where it writes
    args = parser.parse_args()
    sources = {"mnist": args.mnist, "fashion_mnist": args.fashion_mnist, "eurosat": args.eurosat}
    chosen = args.variants.split(";") if args.variants else [row for row in ROWS if sources[ROWS[row][0]]]
    if args.one:
        row = args.variants
        grid = f"{args.grids}/{row.replace(',', '').replace(' ', '_')}.png" if args.grids else ""
        Path(args.one).write_text(json.dumps(one(row, sources[row.split()[0]], args.weights, args.held_out, grid)))
        return 0
    out = Path(args.out)
    if args.page:
        others = json.loads(Path(args.also).read_text())["runs"] if args.also else {}
        runs = {**others, **{k: v for k, v in json.loads(out.read_text())["runs"].items() if v}}
        for epsilon in EPSILONS:
            print(page(runs, epsilon), "", page(runs, epsilon, ("eurosat",)), "", sep="\n")
        return 0
    record = results_in(out, held_out=args.held_out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for row in chosen:
        done = record["runs"].setdefault(row, [])
        while len(done) < args.runs:
            with tempfile.NamedTemporaryFile(suffix=".json") as result:
                options = [f"--variants={row}", f"--one={result.name}"]
                given = [a for a in sys.argv[1:] if not a.startswith(("--variants=", "--runs="))]
                subprocess.run([sys.executable, __file__, *given, *options], check=True)
                done.append(json.loads(Path(result.name).read_text()))
            out.write_text(json.dumps(record, indent=1) + "\n")
            print(to_table({row: done}).splitlines()[-1], flush=True)
    print(to_table(record["runs"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
