"""The command line of ``efsgd sample``: parses arguments, calls ``write_samples``, prints the counts."""

import sys
from collections.abc import Callable, Sequence

import tqdm

from efsgd_jax.cli.parser import Parser, program, show
from efsgd_jax.errors import UserError
from efsgd_jax.runs.data_card import Publication
from efsgd_jax.runs.sampling import DEFAULT_FORMATS, FORMATS, write_samples

DEFAULT_NUMBER = 1000


def make_parser() -> Parser:
    parser = Parser("sample", description="Draw synthetic images from a finished run.")
    parser.add_argument("--workdir", required=True, help="directory of the run")
    parser.add_argument("--out", required=True, help="a new or empty directory")
    parser.add_argument("--n", type=int, help=f"how many images, spread evenly over the classes; {DEFAULT_NUMBER}")
    parser.add_argument("--per_class", help="how many images of each class, instead of --n: CLASS:NUMBER,CLASS:NUMBER")
    parser.add_argument("--proportions", help="shares of --n that sum to 1: CLASS:0.9,CLASS:0.1")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same images; default 0")
    parser.add_argument(
        "--formats",
        default=",".join(DEFAULT_FORMATS),
        help=f"some of {','.join(FORMATS)}; default {','.join(DEFAULT_FORMATS)}",
    )
    parser.add_argument("--title", default="", help="for the data card README.md: a title")
    parser.add_argument("--licence", default="", help="for the data card: licence of the images, such as cc-by-4.0")
    parser.add_argument("--origin", default="", help="for the data card: whose images were learned from, whom to ask")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    per_class = _numbers(args.per_class, "per_class", int)
    counts = write_samples(
        args.workdir,
        args.out,
        DEFAULT_NUMBER if args.n is None and not per_class else args.n,
        per_class=per_class,
        proportions=_numbers(args.proportions, "proportions", float),
        seed=args.seed,
        formats=args.formats.split(","),
        publication=Publication(args.title, args.licence, args.origin),
        advance=_bar(),
    )
    total, classes = sum(counts.values()), sum(n > 0 for n in counts.values())
    show(args, {"out": args.out, "per_class": counts}, f"{total} images of {classes} classes in {args.out}")


def _numbers(text: str | None, flag: str, kind: Callable[[str], float]) -> dict | None:
    """``CLASS:NUMBER,CLASS:NUMBER`` as a dictionary; a class may have a colon in its name."""
    if text is None:
        return None
    found = {}
    for pair in text.split(","):
        name, _, number = pair.rpartition(":")
        try:
            value = kind(number)
        except ValueError:
            name = ""
        if not name.strip():
            raise UserError(f"--{flag} has {pair!r}; write CLASS:NUMBER for each class, with commas between them")
        if name.strip() in found:
            raise UserError(f"--{flag} has the class {name.strip()!r} twice")
        found[name.strip()] = value
    return found


def _bar() -> Callable[[int, int], None] | None:
    """A function that shows the number of images drawn on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        return None
    bar = tqdm.tqdm(unit=" images", dynamic_ncols=True)

    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return advance
