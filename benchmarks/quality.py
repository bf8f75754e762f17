"""The configs for MNIST and Fashion-MNIST, by epsilon and option by option: gen2real by the `dpac` CNN, FID, recall.

    python benchmarks/quality.py --mnist=mnist.npz --fashion_mnist=fashion_mnist.npz --runs=3 \\
        "--variants=mnist 10;mnist 1;fashion_mnist 10;fashion_mnist 1" --out=benchmarks/results/quality.json

60,000 samples a run (1,422 for the digits), 10,000 of them for FID, precision and recall over the features of that CNN
trained on real images. With --held_out the last tenth of the training split takes the place of the test split, which is
not looked at while options are chosen. With --first=55000 only so many training images N are used, at delta 1/(N ln N),
as in papers that keep 5,000 for validation. About a minute a run on 2 CPU cores, with the networks up to half an hour.
Every run draws its own keys from the system's entropy. Interrupted, the same command goes on where it was; --variants
and --runs of a later one may be others.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ablation import spread
from held_out import first_images, without_test_split
from provenance import provenance

from efsgd_jax import evaluate_samples, fit, sample
from efsgd_jax.cli.parser import read_config
from efsgd_jax.formatting import format_epsilon

# For the digits, the size of their training split.
SAMPLES = {"mnist": 60_000, "fashion_mnist": 60_000, "eurosat": 60_000, "digits": 1_422}
CONFIGS = {"mnist": "configs/mixture_mnist.py", "fashion_mnist": "configs/mixture_fmnist.py"}
# The published family with a proof, DP-GAN-DPAC of it, as small as 2 cores can train it.
FAMILY = {"mnist": "configs/sanitized_mnist_small.py", "fashion_mnist": "configs/sanitized_fmnist_small.py"}
# The mixture as latent space of a decoder that is trained by DP-SGD.
EFSGD = {"mnist": "configs/mnist.py", "fashion_mnist": "configs/fmnist.py"}
# The mixture, and a diffusion of what its images lack.
DIFFUSION = {"fashion_mnist": "configs/diffusion_fmnist.py"}
# A network of efsgd_mixture's size takes more time for a step than the generator.
FROM_MIXTURE = ["method.width=32", "method.matching_steps=1000"]
FEWER_MATCHING = "method.matching_steps=2000"
# Ten images of each class that match one noisy release.
PEARL = {"mnist": "configs/pearl_mnist.py", "fashion_mnist": "configs/pearl_fmnist.py"}
P3GM = {"mnist": "configs/p3gm_mnist.py", "fashion_mnist": "configs/p3gm_fmnist.py"}
# What p3gm's decoder starts from: the mixture's config with p3gm's options, and the part of epsilon that it spends.
P3GM_MIXTURE = {
    ("mnist", "1"): "privacy.epsilon=0.75 method.candidates=1 method.contrast=2 method.deformation=0.02679",
    ("mnist", "10"): "privacy.epsilon=6 method.candidates=1 method.contrast=1.5",
    ("fashion_mnist", "1"): "privacy.epsilon=0.75 method.contrast=1.8 method.reranker_share=0.12",
    ("fashion_mnist", "10"): "privacy.epsilon=6 method.contrast=1.35 method.reranker_share=0.06 "
    "method.reranker_steps=60 method.reranker_learning_rate=6",
}
DISTILLED = {"mnist": "configs/distilled_mnist.py", "fashion_mnist": "configs/distilled_fmnist.py"}
# The labels of 2,000 images.
PATE = {"mnist": "configs/pate_mnist.py", "fashion_mnist": "configs/pate_fmnist.py"}
# The paper's networks, trained from nothing.
GAN = {"mnist": "configs/efsgd_mnist.py", "fashion_mnist": "configs/efsgd_fmnist.py"}
BORN = {"mnist": "configs/born_machine_mnist.py", "fashion_mnist": "configs/born_machine_fmnist.py"}
EPSILONS = ("10", "1", "3", "0.2", "inf")
WHITENED = "method.candidates=8 method.reranker=whitened method.acceptance=most_likely"
# Ridge regression on random features of oriented gradients in the place of the logistic or whitened reranker.
RANDOM = "method.candidates=8 method.reranker=random_features method.reranker_share=0.2"
# The config with one option changed, or with options that go together.
OPTIONS = {
    "mnist": {
        "no reranker": "method.candidates=1",
        "no pose": "method.pose_weight=0",
        "pose without slant": "method.pose_slant=false",
        "no deformation": "method.deformation=0",
        "no contrast": "method.contrast=1",
        "low frequencies": "method.low_pass=16",
        "one component": "method.components=1",
        "five components": "method.components=5",
        "50 directions": "method.directions=50",
        "4 candidates": "method.candidates=4",
        "the most likely class": "method.acceptance=most_likely",
        "a whitened reranker": f"{WHITENED} method.reranker_steps=60 method.reranker_learning_rate=2",
        "a whitened reranker, 120 steps": f"{WHITENED} method.reranker_steps=120 method.reranker_learning_rate=15",
        "a whitened reranker, a fifth": f"{WHITENED} method.reranker_steps=60 method.reranker_learning_rate=2 "
        "method.reranker_share=0.2",
        "random features": RANDOM,
        "random features, the most likely class": f"{RANDOM} method.acceptance=most_likely",
        "32 candidates": "method.candidates=32",
        "a third for the reranker": "method.reranker_share=0.33",
        "60 steps of the reranker": "method.reranker_steps=60 method.reranker_learning_rate=6",
    },
}
OPTIONS["fashion_mnist"] = {k: v for k, v in OPTIONS["mnist"].items() if "slant" not in k and "deform" not in k} | {
    "slant": "method.pose_slant=true",
    "a deformation": "method.deformation=0.02",
    "all frequencies": "method.low_pass=0",
}
# Of the networks, in a twentieth of a long training.
SHORT = "train.steps=100 train.expected_batch_size=1024"
# What efsgd_mixture's options are compared with.
PLAIN = "method.mixture_share=0.6 method.edge_weight=0"
EDGES = "method.mixture_share=0.8 method.edge_weight"
NETWORK_OPTIONS = {
    "a share of 0.8, edges": f"{EDGES}=1",
    "a share of 0.8, half the weight of edges": f"{EDGES}=0.5",
    "a share of 0.8, four times the weight of edges": f"{EDGES}=4",
    "a share of 0.8, edges, contrast 1.2": f"{EDGES}=1 method.contrast=1.2",
    "short": "",
    "a share of 0.4": "method.mixture_share=0.4",
    "a share of 0.8": "method.mixture_share=0.8",
    "a share of 0.9": "method.mixture_share=0.9",
    "half the width": "method.width=16",
    "1.5 times the width": "method.width=48",
    "twice the steps": "train.steps=200",
    "twice the batch": "train.expected_batch_size=2048",
    "one component": "method.components=1",
    "noise injection": "method.noise_injection=true",
    "no pose": "method.pose_weight=0",
    "no pose, contrast 1.2": "method.pose_weight=0 method.contrast=1.2",
    "no feedback": "privacy.feedback=none privacy.feedback_l2_norm_clip=0",
    "contrast 1": "method.contrast=1",
    "a whitened reranker": f"{WHITENED} method.reranker_steps=120 method.reranker_learning_rate=15",
    "a whitened reranker, a share of 0.12": f"{WHITENED} method.reranker_steps=120 method.reranker_learning_rate=15 "
    "method.reranker_share=0.12",
    "a whitened reranker, 0.8 for the mixture": (
        f"{WHITENED} method.reranker_steps=120 method.reranker_learning_rate=15 method.mixture_share=0.8"
    ),
}
# Four times as long as the config.
LONG = f"train.steps=600 train.expected_batch_size=4096 {PLAIN}"
LONG_OPTIONS = {
    "a share of 0.6": "",
    "a share of 0.8": "method.mixture_share=0.8",
    "a whitened reranker": f"{WHITENED} method.reranker_steps=120 method.reranker_learning_rate=15",
}
DIFFUSION_OPTIONS = {"short": "", "4 draws": "method.draws=4", "16 sampling steps": "method.sampling_steps=16"}


def variants() -> dict[str, tuple[str, str, list[str]]]:
    """Name -> data set, config, assignments."""
    found = {}
    for name, config in CONFIGS.items():
        for epsilon in EPSILONS:
            asked = f"privacy.epsilon={epsilon}"
            found[f"{name} {epsilon}"] = (name, config, [asked, "preset=long"])
            if epsilon in ("10", "1"):
                found[f"{name} {epsilon}, DP-GAN-DPAC"] = (name, FAMILY[name], [asked, "method.classifier_weight=0.2"])
                found[f"{name} {epsilon}, efsgd_mixture"] = (name, EFSGD[name], [asked])
                strict = "method.acceptance=most_likely"
                found[f"{name} {epsilon}, efsgd_mixture, the most likely class"] = (name, EFSGD[name], [asked, strict])
                # Few steps where there is much noise.
                few = "reranker_steps=60 method.reranker_learning_rate=2 method.reranker_share=0.2"
                steps = few if epsilon == "1" else "reranker_steps=120 method.reranker_learning_rate=15"
                white = [asked, *WHITENED.split(), *f"method.{steps}".split()]
                found[f"{name} {epsilon}, efsgd_mixture with a whitened reranker"] = (name, EFSGD[name], white)
                random = [asked, *RANDOM.split(), strict]
                found[f"{name} {epsilon}, efsgd_mixture with random features"] = (name, EFSGD[name], random)
                found[f"{name} {epsilon}, distilled_set"] = (name, DISTILLED[name], [asked])
                found[f"{name} {epsilon}, pearl"] = (name, PEARL[name], [asked])
                found[f"{name} {epsilon}, DP-MERF"] = (name, PEARL[name], [asked, "method.critic_every=0"])
                warm = ["method.start=mixture", *FROM_MIXTURE]
                found[f"{name} {epsilon}, pearl from a mixture"] = (name, PEARL[name], [asked, *warm])
                found[f"{name} {epsilon}, p3gm"] = (name, P3GM[name], [asked])
                # Within eight minutes on slower machines as well.
                shorter = ((P3GM, "p3gm, 100 steps", "train.steps=100"), (PEARL, "pearl, 2,000 steps", FEWER_MATCHING))
                for configs, suffix, fewer in shorter:
                    found[f"{name} {epsilon}, {suffix}"] = (name, configs[name], [asked, fewer])
                own = ["preset=long", *P3GM_MIXTURE[name, epsilon].split()]
                found[f"{name} {epsilon}, p3gm's mixture"] = (name, config, own)
                found[f"{name} {epsilon}, pate_triple_gan"] = (name, PATE[name], [asked])
                found[f"{name} {epsilon}, efsgd_gan"] = (name, GAN[name], [asked])
                found[f"{name} {epsilon}, born_machine"] = (name, BORN[name], [asked])
                if name in DIFFUSION:
                    found[f"{name} {epsilon}, private_diffusion"] = (name, DIFFUSION[name], [asked])
                # Of epsilon 10 the configs of the networks spend 6 on their mixture.
                own = ["privacy.epsilon=6", "preset=long", "method.reranker_share=0.06"]
                found[f"{name} 6, mixture alone"] = (name, config, own)
                found[f"{name} {epsilon}, quick"] = (name, config, [asked, "preset=quick"])
                for option, assignment in OPTIONS[name].items():
                    found[f"{name} {epsilon}, {option}"] = (name, config, [asked, "preset=long", *assignment.split()])
    for network, config, plain, options in (
        ("efsgd_mixture", EFSGD["fashion_mnist"], PLAIN, NETWORK_OPTIONS),
        ("private_diffusion", DIFFUSION["fashion_mnist"], "", DIFFUSION_OPTIONS),
    ):
        for option, assignment in options.items():
            assigned = [*SHORT.split(), *plain.split(), *assignment.split()]  # the last one counts
            found[f"fashion_mnist 10, {network}, {option}"] = ("fashion_mnist", config, assigned)
    for option, assignment in LONG_OPTIONS.items():
        long = f"fashion_mnist 10, efsgd_mixture, full length, {option}"
        found[long] = ("fashion_mnist", EFSGD["fashion_mnist"], [*LONG.split(), *assignment.split()])
    found["digits 10, efsgd_mixture"] = ("digits", "configs/digits.py", [])
    found["digits 10, efsgd_gan"] = ("digits", "configs/efsgd_digits.py", [])
    return found


VARIANTS = variants()


def run(name: str, config_path: str, assignments: list[str], workdir: Path, metrics: tuple[str, ...]) -> dict:
    """Trains, draws and scores one run."""
    start = time.perf_counter()
    config = read_config(config_path, assignments)
    result = fit(config, workdir, progress=False)
    trained = time.perf_counter()
    sample(workdir, SAMPLES[name], out=workdir / "samples", formats=("npz", "grid"))
    drawn = time.perf_counter()
    scores = evaluate_samples(
        workdir / "samples/samples.npz",
        config,
        metrics=metrics,
        classifiers=("logistic_regression", "cnn") if name == "digits" else ("cnn",),
        classifier_seeds=1,
    )
    linear = scores.gen2real.get("logistic_regression")
    fidelity = scores.fidelity.get("classifier", {})
    return {
        "epsilon": result.privacy["epsilon"],
        "epsilon_by_rdp": result.privacy["epsilon_by_rdp_without_truncation"],
        "noise_multiplier": result.privacy["phases"][0]["mechanism_parameters"]["noise_multiplier"],
        "train_seconds": round(trained - start, 1),
        "draw_seconds": round(drawn - trained, 1),
        "gen2real_cnn": scores.gen2real["cnn"].accuracy,
        **({"gen2real_logistic_regression": linear.accuracy} if linear else {}),
        **fidelity,
    }


def to_table(runs: dict[str, list[dict]]) -> str:
    """One row for each variant."""
    lines = [
        "| config | runs | epsilon, PLD | gen2real CNN | FID | precision, recall | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in runs.items():
        if rows:
            epsilon = rows[0]["epsilon"] if isinstance(rows[0]["epsilon"], str) else format_epsilon(rows[0]["epsilon"])
            accuracy = spread([100 * row["gen2real_cnn"] for row in rows])
            seconds = spread([row["train_seconds"] + row["draw_seconds"] for row in rows], digits=0)
            close = [row for row in rows if "fid" in row]
            fid = spread([row["fid"] for row in close]) if close else ""
            both = (
                ", ".join(f"{np.mean([row[k] for row in close]):.2f}" for k in ("precision", "recall")) if close else ""
            )
            lines.append(f"| {name} | {len(rows)} | {epsilon} | {accuracy} | {fid} | {both} | {seconds} |")
    return "\n".join(lines)


def results_in(out: Path, *, held_out: bool, first: int = 0) -> dict:
    """The results of earlier runs of the same command; those of other images end the program."""
    empty = {"held_out": held_out, **({"first": first} if first else {}), "runs": {}}
    record = json.loads(out.read_text()) if out.is_file() else empty
    if (record["held_out"], record.get("first", 0)) != (held_out, first):
        sys.exit(f"error: {out} has scores of another split; use another --out")
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="the .npz file")
    parser.add_argument("--fashion_mnist", required=True, help="the .npz file")
    parser.add_argument("--held_out", action="store_true", help="score held-out training images, not the test split")
    parser.add_argument("--first", type=int, default=0, help="number of training images; 0 for all")
    parser.add_argument("--metrics", default="utility,fidelity", help="utility or utility,fidelity")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--variants", default=";".join(VARIANTS), help="separated by ;")
    parser.add_argument("--grids", default="", help="directory for a grid of each variant's images")
    parser.add_argument("--out", required=True, help="JSON file of results")
    args = parser.parse_args()
    out = Path(args.out)
    record = results_in(out, held_out=args.held_out, first=args.first)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        sources = {"mnist": args.mnist, "fashion_mnist": args.fashion_mnist, "digits": ""}
        for variant in args.variants.split(";"):
            name, config, assignments = VARIANTS[variant]
            done = record["runs"].setdefault(variant, [])
            while len(done) < args.runs:
                data = [f"data.path={sources[name]}"] if name != "digits" else []
                if args.first:
                    path = first_images(sources[name], name, args.first, Path(directory))
                    delta = 1 / (args.first * math.log(args.first))
                    data = ["data.name=npz", f"data.path={path}", f"privacy.delta={delta}"]
                if args.held_out:
                    data = ["data.name=npz", f"data.path={without_test_split(sources[name], name, Path(directory))}"]
                workdir = Path(directory) / f"{variant}_{len(done)}"
                done.append(
                    {
                        **run(name, config, [*data, *assignments], workdir, tuple(args.metrics.split(","))),
                        **provenance(),
                    }
                )
                out.write_text(json.dumps(record, indent=1) + "\n")
                if args.grids:
                    Path(args.grids).mkdir(parents=True, exist_ok=True)
                    name_of_file = variant.replace(",", "").replace(" ", "_")
                    shutil.copy(workdir / "samples/grid.png", Path(args.grids) / f"{name_of_file}.png")
            print(to_table(record["runs"]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
