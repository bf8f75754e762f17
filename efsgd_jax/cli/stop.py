"""The command line of ``efsgd stop``: parses arguments, calls ``stop`` and prints what was released."""

from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.runs.stop import stop


def make_parser() -> Parser:
    parser = Parser("stop", description="End a training run after its present step; it can be continued later.")
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument(
        "--release", action="store_true", help="finish the run: publish what it has learned, at the epsilon spent"
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds to wait for the process; default 600")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    report = stop(args.workdir, release=args.release, timeout=args.timeout)
    text = "stopped; the same command as before continues the run"
    if report:
        epsilon = format_epsilon(float(report["epsilon"]))
        text = f"released at epsilon {epsilon}, after {report['steps']} steps\n{report['caveats'][-1]}"
    show(args, {"released": report is not None, "privacy": report}, text)
