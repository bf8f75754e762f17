"""The command line of ``python -m efsgd_jax compare``: parses arguments, calls ``compare`` and prints the tables."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program
from efsgd_jax.reports.comparison import compare


def make_parser() -> Parser:
    parser = Parser(
        "compare",
        description="Compare finished runs: a table as text, and a page with privacy against utility.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    parser.add_argument("--out", default="compare.html", help="the page")
    return parser


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    comparison = compare(args.runs, out=args.out)
    print(comparison.text)
    for problem in comparison.problems:
        print(f"left out: {problem}")
    print(f"{comparison.page}: private; scores read real images and are not covered by epsilon")
