"""The command line of ``efsgd report``: parses arguments, calls ``report`` and prints the page's path."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.reports import report


def make_parser() -> Parser:
    parser = Parser(
        "report",
        description="One self-contained HTML page of a finished run, for its owner or, with --release, to publish.",
    )
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument("--out", help="the file; default: WORKDIR/private/report/report.html or WORKDIR/report.html")
    parser.add_argument("--release", action="store_true", help="of release/ alone: no scores, no real images")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    page = report(args.workdir, release=args.release, out=args.out)
    what = "private, for its owner only; it shows real images and scores that no epsilon covers"
    if args.release:
        what = "made of release/ alone; nothing real is on it"
    show(args, {"page": page, "private": not args.release}, f"{page}: {what}")
