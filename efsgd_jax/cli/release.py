"""The command line of ``efsgd release``: parses arguments, calls ``pack`` and prints the file names."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.files import read_json
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.runs.privacy_report import OF_THE_UNIT
from efsgd_jax.runs.release import pack
from efsgd_jax.runs.workdir import Workdir


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
    privacy = read_json(Workdir(args.workdir).privacy_json)
    spent = f"({format_epsilon(privacy['epsilon'])}, {privacy['delta']:g})"
    lines = [
        f"{args.out} holds nothing that this guarantee does not cover: {', '.join(names)}.",
        f"The guarantee is {spent}-differential privacy for {privacy['unit']}; PRIVACY.md has a paragraph to quote.",
        *OF_THE_UNIT[privacy["unit"]],
        "It may be published if that is enough, and so may images that `efsgd sample` draws from the run, with their",
        "data card, and the page of `efsgd report --release`. What is in private/ may not: destroy it in the end",
        "(docs/data_owners.md, section 8).",
    ]
    show(args, {"zip": args.out, "files": names}, "\n".join(lines))
