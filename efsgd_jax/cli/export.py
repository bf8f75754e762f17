"""The command line of ``efsgd export``: parses arguments, calls ``export`` and prints the files."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.runs.export import export


def make_parser() -> Parser:
    parser = Parser(
        "export",
        description="Write a finished run's generator for programs without this library: StableHLO and safetensors.",
    )
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument("out", help="a new or empty directory")
    parser.add_argument("--batch_size", type=int, default=100, help="images of one call of the program")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    files = export(args.workdir, args.out, batch_size=args.batch_size)
    text = "\n".join(f"{path}  {path.stat().st_size / 2**20:.1f} MiB" for path in files)
    show(args, {"files": files}, text)
