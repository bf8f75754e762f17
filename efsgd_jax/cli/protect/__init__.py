"""``efsgd protect KIND``: protections without an epsilon, but for ``smote --epsilon``.

Each kind has a module with ``make_parser`` and ``main``.
"""

import importlib
from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program
from efsgd_jax.errors import UserError

# Name of each kind -> its module, and what it does.
KINDS = {
    "smote": ("efsgd_jax.cli.protect.smote", "interpolate between the rows of a table"),
    "confound": ("efsgd_jax.cli.protect.confound", "add small noise against learning from labelled images"),
    "anonymise": ("efsgd_jax.cli.protect.anonymise", "replace images by ones in which a recogniser sees another"),
    "views": ("efsgd_jax.cli.protect.views", "bend the posed views of a scene against NeRFs"),
}
TITLE = (
    "Protect data by other means than differential privacy: nothing here has a guarantee, and `efsgd release` refuses "
    "what is written. The one exception is `smote --epsilon`, which draws differentially private rows that may be "
    "published as they are."
)


def make_parser() -> Parser:
    parser = Parser("protect", description=TITLE)
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", parser_class=_Part)
    for name, (module, what) in KINDS.items():
        kinds.add_parser(name, parents=[importlib.import_module(module).make_parser()], add_help=False, help=what)
    return parser


class _Part(Parser):
    """The parser of one kind, as a part of the parser of the command; ``argparse`` gives it the name to show."""

    def __init__(self, prog: str, **options: object):
        super().__init__("protect", **options)
        self.prog = prog


def main(argv: Sequence[str] | None = None) -> int:
    first, *rest = [*(argv or ()), ""]
    if first in KINDS:
        return importlib.import_module(KINDS[first][0]).main(rest[:-1])
    return _about(list(argv or ()))


@program
def _about(argv: Sequence[str]) -> None:
    make_parser().parse_args(argv)  # ends with the help, or raises, unless there is no argument
    raise UserError(f"efsgd protect needs one of {', '.join(KINDS)}; efsgd protect --help says what they do")
