"""The command line of ``efsgd table``: synthetic rows of a table of categories."""

import argparse
from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon

EXAMPLES = """columns.json declares the columns, in an order in which columns that go together are side by side. Declare
what may occur, not what does occur: the file is published.
  {"sex": ["f", "m"], "age": {"edges": [0, 18, 40, 65, 120]}, "finding": ["none", "benign", "malignant"]}

example:
  efsgd table patients.csv --columns=columns.json --epsilon=1 --n=1000 --out=table"""


def make_parser() -> Parser:
    parser = Parser(
        "table",
        description="Synthetic rows of a small table, such as labels and metadata beside images, by a private Born "
        "machine. A row is the unit: one person has one row.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", help="a CSV file; columns that are not declared are not read")
    parser.add_argument("--columns", required=True, help="a JSON file that declares the columns")
    parser.add_argument("--epsilon", type=float, required=True, help="the epsilon to spend")
    parser.add_argument("--delta", type=float, default=1e-5, help="its delta, below 1/N")
    parser.add_argument("--n", type=int, default=1000, help="number of synthetic rows")
    parser.add_argument("--out", required=True, help="a new directory for what may be published")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    from efsgd_jax.tables import fit_table
    from efsgd_jax.tables.files import check_new, publish, read_columns, read_rows

    check_new(args.out)  # before training, so that nothing is lost
    if args.n < 1:
        raise UserError(f"--n is {args.n}; it is at least 1")
    table = fit_table(read_rows(args.rows), read_columns(args.columns), epsilon=args.epsilon, delta=args.delta)
    written = publish(table, table.sample(args.n), args.out)
    lines = [
        f"{args.out} may be published: {', '.join(path.name for path in written)}.",
        f"It guarantees ({format_epsilon(table.epsilon)}, {table.delta:g})-differential privacy for one row. "
        "Each further try that is published costs its epsilon again.",
    ]
    show(args, {"epsilon": table.epsilon, "delta": table.delta, "files": [str(p) for p in written]}, "\n".join(lines))
