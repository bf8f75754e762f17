"""The command line of ``python -m efsgd_jax stop``: parses arguments, calls ``stop`` and prints what was released."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.runs.stop import stop


def make_parser() -> Parser:
    parser = Parser("stop", description="End a training run after its present step; it can be continued later.")
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument(
        "--release", action="store_true", help="finish the run: publish what it has learned, at the epsilon spent"
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the process; default 600")
    return parser


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    report = stop(args.workdir, release=args.release, timeout=args.timeout)
    if report is None:
        print("stopped; the same command as before continues the run")
        return
    print(f"released at epsilon {format_epsilon(float(report['epsilon']))}, after {report['steps']} steps")
    print(report["caveats"][-1])
