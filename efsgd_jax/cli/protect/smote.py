"""The command line of ``efsgd protect smote``: parses arguments, replaces rows and writes what attacks find."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.errors import UserError
from efsgd_jax.files import check_new_directory

ROWS = "rows.csv"
DECLARED = '{"age": {"range": [0, 120]}}'
EXAMPLES = """columns.json declares numbers by their range, and at most one label by its values. Declare what may occur,
not what does occur:
  {"age": {"range": [0, 120]}, "weight": {"range": [0, 300]}, "finding": ["benign", "malignant"]}

examples:
  efsgd protect smote patients.csv --columns=columns.json --out=moved               # no guarantee
  efsgd protect smote patients.csv --columns=columns.json --epsilon=1 --out=drawn   # differentially private"""


def make_parser() -> Parser:
    parser = Parser(
        "protect smote",
        description="Replace each row of a table by one between it and a row like it (PrivateSMOTE): no guarantee. "
        "With --epsilon, draw rows between private centres instead: differential privacy.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", help="a CSV file; columns that are not declared are not read")
    parser.add_argument("--columns", required=True, help="a JSON file that declares the columns")
    parser.add_argument("--out", required=True, help="a new directory")
    parser.add_argument("--noise_scale", type=float, help="scale of the noise, from 1e-6 to 10000; 1 unless given")
    parser.add_argument(
        "--neighbours", type=int, help="nearest rows of the label to choose from, 5; fewer if it has fewer"
    )
    parser.add_argument("--k", type=int, help="a row is at risk if fewer rows share its values, 3")
    parser.add_argument(
        "--seed", type=int, help="seed of noise and order; keep it secret, it undoes both. Fresh unless given"
    )
    parser.add_argument("--epsilon", type=float, help="spend this epsilon on private centres")
    parser.add_argument("--delta", type=float, default=1e-5, help="its delta, below 1/N")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    out = Path(args.out).expanduser()
    check_new_directory(out, "protected rows")
    if args.epsilon is not None:
        _refuse_unused(args)
    from efsgd_jax.protect.rows import read_rows
    from efsgd_jax.tables.files import read_columns, write_rows
    from efsgd_jax.tables.files import read_rows as read_csv

    rows = read_rows(read_csv(args.rows), read_columns(args.columns, DECLARED))
    if args.epsilon is None:
        from efsgd_jax.protect.smote_run import protect_rows

        made = protect_rows(
            rows,
            out,
            noise_scale=1.0 if args.noise_scale is None else args.noise_scale,
            neighbours=5 if args.neighbours is None else args.neighbours,
            fewest=3 if args.k is None else args.k,
            seed=args.seed,
        )
        write_rows(out / ROWS, rows.table(made.moved.cells, made.moved.labels))
        used = f"{made.fewest}" if made.fewest == made.most else f"{made.fewest} to {made.most}, depending on the label"
        text = (
            f"wrote {out}: {len(rows.cells)} rows in a random order, none with a cell of the original; neighbours: "
            f"{used}\n"
            f"This is not differential privacy: with the table at hand, {100 * made.recognised:.0f}% of the rows are "
            "recognised. PROTECTION.md says what was measured, and what breaks it. Labels are unchanged."
        )
        facts = {
            "out": str(out), "rows": len(rows.cells), "recognised": made.recognised,
            "neighbours": [made.fewest, made.most], "guarantee": "none",
        }  # fmt: skip
        show(args, facts, text)
        return
    from efsgd_jax.formatting import format_epsilon
    from efsgd_jax.protect.private_smote import fit_centres, write_private

    found = fit_centres(rows, epsilon=args.epsilon, delta=args.delta)
    cells, labels = found.sample(len(rows.cells))
    write_private(out, found, rows)
    write_rows(out / ROWS, rows.table(cells, labels))
    spent = f"({format_epsilon(found.epsilon)}, {found.delta:g})"
    text = f"wrote {out}: {len(cells)} rows, which guarantee {spent}-differential privacy for one row"
    show(args, {"out": str(out), "rows": len(cells), "epsilon": found.epsilon, "delta": found.delta}, text)


def _refuse_unused(args: argparse.Namespace) -> None:
    """Raises ``UserError`` for flags that ``--epsilon`` does not use: their defaults are None, to tell."""
    if args.seed is not None:
        raise UserError("--seed is for rows without a guarantee; the noise of private centres has no seed")
    for name in ("noise_scale", "neighbours", "k"):
        if (value := getattr(args, name)) is not None:
            raise UserError(
                f"--{name}={value} is for rows without a guarantee, and not used with --epsilon; leave out one of them"
            )
