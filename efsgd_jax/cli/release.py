"""The command line of ``python -m efsgd_jax release``: parses arguments, calls ``pack`` and prints the file names."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.runs.release import pack


def make_parser() -> Parser:
    parser = Parser(
        "release",
        description="Pack what a finished run may publish; refuse if anything in it is not covered by its epsilon.",
    )
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument("out", help="a new .zip file")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    names = pack(args.workdir, args.out)
    show(args, {"zip": args.out, "files": names}, f"{args.out}: {', '.join(names)}")
