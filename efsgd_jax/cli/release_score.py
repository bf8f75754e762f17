"""The command line of ``efsgd release_score``: parses arguments, releases a score and prints it."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.evaluation.release_score import release_score
from efsgd_jax.formatting import format_epsilon


def make_parser() -> Parser:
    parser = Parser(
        "release_score",
        description="Publish one accuracy on real data with noise, and charge it to the run's epsilon. Decide which "
        "one before you look at the scores: a choice by looking is not covered.",
    )
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument("score", help="such as gen2real.cnn or, of a protocol, dpac.gen2real.cnn")
    parser.add_argument("--epsilon", type=float, required=True, help="of this query")
    parser.add_argument(
        "--target_epsilon", type=float, help="what training and queries may spend together; default: the run's target"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="release a new value of a released score, which spends epsilon again",
    )
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    released = release_score(
        args.workdir, args.score, args.epsilon, target_epsilon=args.target_epsilon, again=args.again
    )
    s, p = released.score, released.privacy
    low, high = (100 * x for x in s["interval_95"])
    lines = []
    if not released.charged:
        lines.append(f"{args.score} was released before; nothing is spent (--again releases a new value)")
    lines += [
        f"{args.score}  {100 * s['accuracy']:.1f}%  (95% interval {low:.1f} to {high:.1f}; "
        f"epsilon {format_epsilon(s['epsilon'])})",
        f"epsilon spent  {format_epsilon(p['epsilon'])} at delta {p['delta']:g}, "
        f"of which training {format_epsilon(p['training_epsilon'])}",
    ]
    if released.charged:
        lines.append(
            "What was made before states the epsilon of before: draw images that you hand over again with `efsgd "
            "sample`, make the page again with `efsgd report --release`, and pack the release again."
        )
    show(args, {"score": s, "privacy": p, "charged": released.charged}, "\n".join(lines))
