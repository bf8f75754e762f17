"""The command line of ``efsgd prepare``: parses arguments, calls ``prepare_data`` and prints what was written."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, read_config, show, split_overrides
from efsgd_jax.runs.prepare import prepare_data


def make_parser() -> Parser:
    parser = Parser(
        "prepare",
        description="Write the private images once as arrays that stay on disk, for data that do not fit into memory. "
        "What is written is as private as the images.",
    )
    parser.add_argument("--config", required=True, help="the config of the runs, such as preset:folder")
    parser.add_argument("--out", required=True, help="the new directory")
    parser.epilog = "Then train with the same config and --config.data.name=prepared --config.data.path=OUT."
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    args = make_parser().parse_args(rest)
    made = prepare_data(read_config(args.config, overrides), args.out)
    height, width, channels = made.shape
    text = (
        f"wrote {made.path}: {made.train} training and {made.test} test images of "
        f"{width}x{height}, {channels} channel(s)\n"
        "private: these are the images themselves; publish nothing of it\n"
        f"train with --config.data.name=prepared --config.data.path={made.path}"
    )
    show(args, {**made._asdict(), "path": str(made.path), "shape": list(made.shape)}, text)
