"""The command lines of ``python -m efsgd_jax.train``, ``.sample`` and the others: parse, call, print."""

import sys
from collections.abc import Sequence
from typing import Any

import jax

from efsgd_jax.cli import Parser, program, read_config, split_overrides
from efsgd_jax.metrics import CLASSIFIERS, DEFAULT_CLASSIFIERS, PROTOCOLS, to_table
from efsgd_jax.pages import compare, report
from efsgd_jax.privacy.published import ACCOUNTINGS
from efsgd_jax.runs.devices import is_first, join_processes
from efsgd_jax.runs.evaluate import evaluate, evaluate_samples
from efsgd_jax.runs.fit import fit
from efsgd_jax.runs.release import pack
from efsgd_jax.runs.release_score import release_score
from efsgd_jax.runs.sample import FORMATS, sample
from efsgd_jax.runs.scoring import METRICS


def _parser(name: str, description: str) -> Parser:
    parser = Parser(prog=f"python -m efsgd_jax.{name}", description=description)
    parser.add_argument("--workdir", required=True, help="directory of the run")
    return parser


@program
def train(argv: Sequence[str]) -> None:
    parser = _parser("train", "Train a differentially private image generator, or continue a killed run.")
    parser.add_argument("--config", help="a recipe, such as configs/digits.py; the default is digits")
    parser.add_argument(
        "--distributed", action="store_true",
        help="one of several processes that train together: on Slurm, Kubernetes and TPU pods they find each other; "
        "elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
    )  # fmt: skip
    parser.epilog = "--config.KEY=VALUE changes one key, such as --config.privacy.epsilon=1"
    overrides, rest = split_overrides(argv)
    args = parser.parse_args(rest)
    config = read_config(args.config, overrides)
    if args.distributed:
        join_processes()
    result = fit(config, args.workdir)
    if not is_first():
        return
    if not result.privacy["guarantee"]:
        print(f"NOT PRIVATE: {result.privacy['reason_for_no_guarantee']}")
    print(f"epsilon spent  {result.epsilon:.4f} at delta {result.delta:g}, after {result.steps} steps")
    for name, value in result.privacy.get("accountings", {}).items():
        print(
            f"  {value:>8.4g}  {ACCOUNTINGS[name]}"
            if isinstance(value, float)
            else f"  {value:>8}  {ACCOUNTINGS[name]}"
        )
    print(f"sample grid    {result.samples}")
    print(f"release        {result.workdir / 'release'}")


@program
def draw(argv: Sequence[str]) -> None:
    parser = _parser("sample", "Draw synthetic images from a finished run.")
    parser.add_argument("--out", required=True, help="a new or empty directory")
    parser.add_argument("--n", type=int, default=1000, help="how many images, spread evenly over the classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default=",".join(FORMATS), help="some of " + ",".join(FORMATS))
    args = parser.parse_args(argv)
    samples = sample(args.workdir, args.n, seed=args.seed, out=args.out, formats=args.formats.split(","))
    print(f"{len(samples.labels)} images of {len(samples.class_names)} classes in {args.out}")


@program
def score(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m efsgd_jax.evaluate", description="Score a finished run, or images from a file, by real data."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", help="directory of a finished run")
    what.add_argument("--samples", help="an .npz file with x_train and y_train, of whatever origin; needs --config")
    parser.add_argument("--config", help="with --samples: the recipe whose data they are scored against")
    parser.add_argument("--protocol", help="a published protocol, one of " + ",".join(PROTOCOLS))
    parser.add_argument(
        "--n", type=int, help="synthetic images; default: the protocol's number, else as many as real, at most 10000"
    )
    parser.add_argument("--seed", type=int, help="of the synthetic images; default 0")
    parser.add_argument("--metrics", help=f"some of {','.join(METRICS)}; default: all")
    parser.add_argument(
        "--classifiers",
        help=f"some of {','.join(CLASSIFIERS)}; default: the protocol's, else {','.join(DEFAULT_CLASSIFIERS)}",
    )
    parser.add_argument("--classifier_seeds", type=int, help="how many of each classifier are trained; default 3")
    parser.add_argument(
        "--inception", help="the file of InceptionV3's weights, or 'download': also FID and the like of its features"
    )
    parser.epilog = "--config.KEY=VALUE changes one key of --config, such as --config.data.path=FILE"
    overrides, rest = split_overrides(argv)
    args = parser.parse_args(rest)
    options: dict[str, Any] = {
        "metrics": _names(args.metrics),
        "classifiers": _names(args.classifiers),
        "classifier_seeds": args.classifier_seeds,
        "protocol": args.protocol,
        "inception": args.inception,
        "progress": True,
    }
    slow = PROTOCOLS[args.protocol].cost if args.protocol in PROTOCOLS and jax.default_backend() == "cpu" else ""
    if slow:
        print(f"protocol {args.protocol} takes about {slow} on two CPU cores: it is meant for a GPU", file=sys.stderr)
    if args.samples:
        if not args.config or args.n is not None or args.seed is not None:
            parser.error("--samples needs --config, and takes neither --n nor --seed")
        scores = evaluate_samples(args.samples, read_config(args.config, overrides), **options)
    else:
        if args.config or overrides:
            parser.error("--workdir knows its own configuration; leave --config out")
        scores = evaluate(args.workdir, num_images=args.n, seed=args.seed or 0, **options)
    print(to_table(scores))
    print("These scores read real images: they are not covered by epsilon. One can be bought: efsgd_jax.release_score.")


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split(","))


@program
def publish(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m efsgd_jax.release",
        description="Pack what a finished run may publish; refuse if anything in it is not covered by its epsilon.",
    )
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument("out", help="a new .zip file")
    args = parser.parse_args(argv)
    names = pack(args.workdir, args.out)
    print(f"{args.out}: {', '.join(names)}")


@program
def make_report(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m efsgd_jax.report",
        description="One self-contained HTML page of a finished run, for its owner or, with --release, for everybody.",
    )
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument("--out", help="the file; default: WORKDIR/private/report/report.html or WORKDIR/report.html")
    parser.add_argument("--release", action="store_true", help="of release/ alone: no scores, no real images")
    args = parser.parse_args(argv)
    page = report(args.workdir, release=args.release, out=args.out)
    if args.release:
        print(f"{page}: made of release/ alone; nothing real is on it")
    else:
        print(f"{page}: private, for its owner only; it shows real images and scores that no epsilon covers")


@program
def make_comparison(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m efsgd_jax.compare",
        description="Compare finished runs: a table as text, and a page with privacy against utility.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    parser.add_argument("--out", default="compare.html", help="the page")
    args = parser.parse_args(argv)
    comparison = compare(args.runs, out=args.out)
    print(comparison.text)
    for problem in comparison.problems:
        print(f"left out: {problem}")
    print(f"{comparison.page}: private; scores read real images and are not covered by epsilon")


@program
def publish_score(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m efsgd_jax.release_score",
        description="Publish one accuracy on real data with noise, and charge it to the run's epsilon. Decide which "
        "one before you look at the scores: a choice by looking is not covered.",
    )
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument("score", help="such as gen2real.cnn or, of a protocol, dpac.gen2real.cnn")
    parser.add_argument("--epsilon", type=float, required=True, help="of this query")
    parser.add_argument(
        "--target_epsilon", type=float, help="what training and queries may spend together; default: the run's target"
    )
    parser.add_argument("--again", action="store_true", help="draw, and pay for, a new value of a released score")
    args = parser.parse_args(argv)
    released = release_score(
        args.workdir, args.score, args.epsilon, target_epsilon=args.target_epsilon, again=args.again
    )
    s, p = released.score, released.privacy
    low, high = (100 * x for x in s["interval_95"])
    if not released.charged:
        print(f"{args.score} was paid for before; nothing is spent (--again draws a new value)")
    print(f"{args.score}  {100 * s['accuracy']:.1f}%  (95% interval {low:.1f} to {high:.1f}; epsilon {s['epsilon']:g})")
    print(f"epsilon spent  {p['epsilon']:.4f} at delta {p['delta']:g}, of which training {p['training_epsilon']:.4f}")
