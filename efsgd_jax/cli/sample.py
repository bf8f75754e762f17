"""The command line of ``python -m efsgd_jax sample``: parses arguments, calls ``sample`` and prints the result."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program
from efsgd_jax.runs.sampling import FORMATS, sample


def make_parser() -> Parser:
    parser = Parser("sample", description="Draw synthetic images from a finished run.")
    parser.add_argument("--workdir", required=True, help="directory of the run")
    parser.add_argument("--out", required=True, help="a new or empty directory")
    parser.add_argument("--n", type=int, default=1000, help="how many images, spread evenly over the classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default=",".join(FORMATS), help="some of " + ",".join(FORMATS))
    return parser


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    samples = sample(args.workdir, args.n, seed=args.seed, out=args.out, formats=args.formats.split(","))
    print(f"{len(samples.labels)} images of {len(samples.class_names)} classes in {args.out}")
