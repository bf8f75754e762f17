"""``efsgd audit``: attacks the claimed epsilons, and prints the lower bounds that the attacks prove.

Without --config or --workdir: distinguishing games on the private step itself, for every feedback mode, sampler and
clipping method, on losses with several parameter arrays, convolutions and loops, and on full-batch releases.
With --config: one training run of that config with canaries. With --workdir: membership inference on the images of a
finished run. With --table: the same on a table that `efsgd table` wrote, by the likelihood of rows.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax

from efsgd_jax.audit.suite import sound_games
from efsgd_jax.audit.tails import attack_tails
from efsgd_jax.audit.white_box import attack_mutants, audit, mutants_table, to_table
from efsgd_jax.cli.parser import Parser, program, read_config, split_overrides
from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon, format_lower_bound
from efsgd_jax.privacy import fresh_key

if TYPE_CHECKING:
    from efsgd_jax.audit.membership import Membership

EXAMPLES = """examples:
  efsgd audit --quick                           the step, one game for each mode and sampler
  efsgd audit --mutants                         mechanisms with a fault each: all must be detected
  efsgd audit --config=configs/efsgd_digits.py  a training run with canaries
  efsgd audit --workdir=runs/digits             the images of a finished run
  efsgd audit --table=out/table.json --used=patients.csv --unused=others.csv"""


def step(args: argparse.Namespace) -> None:
    """Plays distinguishing games on the private step; raises ``UserError`` if a claimed epsilon is refuted."""
    games = sound_games(quick=args.quick)
    print(
        f"{len(games)} games, {args.trials} runs with the canary and as many without, delta {args.delta:g}, "
        "confidence 95% for all games together"
    )
    rows = []
    for row in audit(games, trials=args.trials, delta=args.delta, key=fresh_key()):
        rows.append(row)
        print(
            f"  {row.name}: epsilon is at least {format_lower_bound(row.bound)}, claimed {format_epsilon(row.claimed)}",
            flush=True,
        )
    print("\n" + to_table(rows))
    refuted = [row.name for row in rows if row.refuted]
    if refuted:
        raise UserError(f"the audit refutes the epsilon of: {'; '.join(refuted)}")


def faults(args: argparse.Namespace) -> None:
    """Plays the games on mutants, which have a fault each, and tests the tails of the noise.

    Raises ``UserError`` if the audit does not detect a mutant, or if it refutes the tails.
    """
    rows = list(attack_mutants(trials=args.trials, delta=args.delta, key=fresh_key()))
    print(mutants_table(rows))
    missed = [row.name for row in rows if not row.broken.refuted]
    tails = attack_tails(trials=args.trials, key=fresh_key())
    print("\nthe tails of the noise, at delta 1e-5\n\n" + to_table(tails))
    if jax.device_count() == 1:
        print(
            "\nno game on a mesh: there is one device (XLA_FLAGS=--xla_force_host_platform_device_count=4 makes four)"
        )
    if any(row.refuted for row in tails):
        raise UserError("the audit refutes the tails of the noise")
    if missed:
        raise UserError(f"the audit does not detect: {'; '.join(missed)}; use more --trials")


def run(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Audits a training run with canaries; raises ``UserError`` if its epsilon is refuted."""
    from efsgd_jax.audit.canaries import audit_run

    result = audit_run(read_config(args.config, overrides), canaries=args.canaries)
    print(
        f"claimed      epsilon {format_epsilon(result.claimed)} at delta {result.delta:g}, after {result.steps} steps"
    )
    for name, bound in result.bounds.items():
        curve = result.curves[name]
        print(
            f"{name:11}  epsilon is at least {format_lower_bound(bound)} (95%); "
            f"area under the curve {curve:.3f} (guessing: 0.5)"
        )
    if max(result.bounds.values()) > result.claimed:
        raise UserError("the audit refutes the run's epsilon")


def release(args: argparse.Namespace) -> None:
    """Audits the images of a finished run, and saves the result for the run's report.

    Raises ``UserError`` if the run's epsilon is refuted.
    """
    from efsgd_jax.audit.membership import audit_release
    from efsgd_jax.files import write_json
    from efsgd_jax.runs.workdir import Workdir

    result, directory = audit_release(args.workdir), Workdir(args.workdir)
    of_generator = {"generator_sha256": directory.generator_sha256}
    write_json(directory.audit, {**result._asdict(), **of_generator}, private=True)
    _print_membership(result, "the train/test split is random", "train and as many test images")
    if result.bound > result.claimed:
        raise UserError("the audit refutes the run's epsilon")


def table(args: argparse.Namespace) -> None:
    """Audits a released table; raises ``UserError`` if its epsilon is refuted."""
    from efsgd_jax.audit.membership import audit_table
    from efsgd_jax.tables import Table
    from efsgd_jax.tables.files import read_rows

    if not (args.table and args.used and args.unused):
        raise UserError(
            "--table, --used and --unused go together: the table, the rows that it was fitted to, and other rows"
        )
    result = audit_table(Table.read(args.table), read_rows(args.used), read_rows(args.unused))
    _print_membership(result, "which rows were used is random", "rows that were used and as many others")
    if result.bound > result.claimed:
        raise UserError("the audit refutes the table's epsilon")


def _print_membership(result: "Membership", condition: str, compared: str) -> None:
    print(f"claimed      epsilon {format_epsilon(result.claimed)} at delta {result.delta:g}")
    print(f"black box    epsilon is at least {format_lower_bound(result.bound)} (95%, if {condition})")
    print(f"             area under the curve {result.curve:.3f} (guessing: 0.5), true positives at 1% false: "
          f"{100 * result.rate:.1f}%, {result.images} {compared}")  # fmt: skip


def make_parser() -> Parser:
    parser = Parser(
        "audit",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--trials",
        type=int,
        help="runs of each game with the canary, and without: 200,000; 10,000 with --quick, 20,000 with --mutants",
    )
    parser.add_argument("--delta", type=float, default=1e-2, help="of the games: one that so many trials can reach")
    parser.add_argument("--quick", action="store_true", help="a selection of the games")
    parser.add_argument("--mutants", action="store_true", help="play against deliberately broken mechanisms instead")
    parser.add_argument("--config", help="a config, with --config.KEY=VALUE: audit one training run")
    parser.add_argument("--canaries", type=int, default=200, help="of that run")
    parser.add_argument("--workdir", help="a finished run: audit its images")
    parser.add_argument("--table", help="the table.json that efsgd table wrote: audit it")
    parser.add_argument("--used", help="with --table: a CSV file of the rows that it was fitted to")
    parser.add_argument("--unused", help="with --table: a CSV file of other rows, chosen at random not to be used")
    return parser


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    args = make_parser().parse_args(rest)
    if args.trials is None:
        args.trials = 20_000 if args.mutants else 10_000 if args.quick else 200_000
    if args.trials < 1000:
        raise UserError(f"--trials is {args.trials}; fewer than 1000 show nothing")
    if not 0 < args.delta < 1:
        raise UserError(f"--delta is {args.delta}; it must be between 0 and 1")
    if sum(map(bool, (args.workdir, args.table, args.config or overrides))) > 1:
        raise UserError("--workdir, --table and --config: one thing at a time")
    if args.table or args.used or args.unused:
        table(args)
    elif args.workdir:
        release(args)
    elif args.config or overrides:
        run(args, overrides)
    elif args.mutants:
        faults(args)
    else:
        step(args)


if __name__ == "__main__":
    sys.exit(main())
