"""The command lines of ``python -m efsgd_jax.train``, ``.sample`` and ``.evaluate``: parse, call, print."""

from collections.abc import Sequence

from efsgd_jax.cli import Parser, program, read_config, split_overrides
from efsgd_jax.metrics import CLASSIFIERS, DEFAULT_CLASSIFIERS, PROTOCOLS, to_table
from efsgd_jax.privacy.published import ACCOUNTINGS
from efsgd_jax.runs.devices import is_first, join_processes
from efsgd_jax.runs.evaluate import evaluate
from efsgd_jax.runs.fit import fit
from efsgd_jax.runs.release import pack
from efsgd_jax.runs.release_score import release_score
from efsgd_jax.runs.sample import FORMATS, sample


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
    parser = _parser("evaluate", "Score a finished run against its real data.")
    parser.add_argument("--protocol", help="a published protocol, one of " + ",".join(PROTOCOLS))
    parser.add_argument(
        "--n", type=int, help="synthetic images; default: the protocol's number, else as many as real, at most 10000"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--classifiers",
        help=f"some of {','.join(CLASSIFIERS)}; default: the protocol's, else {','.join(DEFAULT_CLASSIFIERS)}",
    )
    parser.add_argument("--fidelity", action="store_true", help="also IS and FID, over features of a CNN of this data")
    args = parser.parse_args(argv)
    scores = evaluate(
        args.workdir,
        num_images=args.n,
        classifiers=None if args.classifiers is None else tuple(args.classifiers.split(",")),
        fidelity=args.fidelity,
        protocol=args.protocol,
        seed=args.seed,
        progress=args.protocol is not None,
    )
    print(to_table(scores))
    print("These scores read real images: they are not covered by epsilon.")


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
