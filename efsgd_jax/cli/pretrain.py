"""The command line of ``efsgd pretrain``: parses arguments, calls ``pretrain`` and prints the hash."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, read_config, show, split_overrides
from efsgd_jax.runs.pretrain import pretrain


def make_parser() -> Parser:
    parser = Parser(
        "pretrain",
        description="Train an autoencoder on public images, for --config.public.weights of private runs. Private data "
        "is not read. Interrupted, the same command continues.",
    )
    parser.add_argument("--config", required=True, help="the config of the private runs, such as preset:folder")
    parser.add_argument("--out", required=True, help="the new file of weights")
    parser.epilog = "--config.public.path=PUBLIC names the public images: a directory, a .zip of class folders, ..."
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    args = make_parser().parse_args(rest)
    sha256 = pretrain(read_config(args.config, overrides), args.out)
    show(args, {"weights": args.out, "sha256": sha256}, f"weights  {args.out}\nSHA-256  {sha256}")
