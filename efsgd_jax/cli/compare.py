"""The command line of ``efsgd compare``: parses arguments, calls ``compare`` and prints the tables."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.reports.comparison import compare


def make_parser() -> Parser:
    parser = Parser(
        "compare",
        description="Compare finished runs: a table as text, and a page with privacy against utility.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    parser.add_argument("--out", default="compare.html", help="the page; default: compare.html here")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    comparison = compare(args.runs, out=args.out)
    lines = [comparison.text, *(f"left out: {problem}" for problem in comparison.problems)]
    lines.append(f"{comparison.page}: private; scores read real images: publish only those of public images")
    value = {"page": comparison.page, "left_out": comparison.problems, "table": comparison.text}
    show(args, value, "\n".join(lines))
