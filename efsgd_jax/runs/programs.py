"""The command lines of ``python -m efsgd_jax.train``, ``.sample`` and ``.evaluate``: parse, call, print.

A user's mistake ends with one line on standard error and exit status 2, never with a traceback.
"""

import argparse
import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import absl.logging

from efsgd_jax.config import default_config, load_config, override
from efsgd_jax.errors import UserError
from efsgd_jax.metrics import CLASSIFIERS
from efsgd_jax.runs.evaluate import evaluate, to_table
from efsgd_jax.runs.fit import fit
from efsgd_jax.runs.release import pack
from efsgd_jax.runs.sample import FORMATS, sample


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {self.prog} --help lists the flags")


def _parser(name: str, description: str) -> _Parser:
    parser = _Parser(prog=f"python -m efsgd_jax.{name}", description=description, allow_abbrev=False)
    parser.add_argument("--workdir", required=True, help="directory of the run")
    return parser


def program(main: Callable[[Sequence[str]], None]) -> Callable[..., int]:
    """Turns what a person can get wrong into one line and an exit status."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        # RDP orders that do not converge are left out, which is sound and not worth a line.
        absl.logging.set_verbosity(absl.logging.ERROR)
        warnings.showwarning = _one_line_warning  # type: ignore[assignment]
        try:
            main(sys.argv[1:] if argv is None else argv)
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
            return 130
        return 0

    return run


def _one_line_warning(message: Any, category: type[Warning], *rest: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


@program
def train(argv: Sequence[str]) -> None:
    parser = _parser("train", "Train a differentially private image generator, or continue a killed run.")
    parser.add_argument("--config", help="a recipe, such as configs/digits.py; the default is digits")
    parser.epilog = "--config.KEY=VALUE changes one key, such as --config.privacy.epsilon=1"
    overrides = [a for a in argv if a.startswith("--config.")]
    args = parser.parse_args([a for a in argv if not a.startswith("--config.")])
    config = load_config(args.config) if args.config else default_config()
    for argument in overrides:
        key, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            raise UserError(f"{argument} has no value; write {argument}=VALUE")
        override(config, key, value)
    result = fit(config, args.workdir)
    if not result.privacy["guarantee"]:
        print(f"NOT PRIVATE: {result.privacy['reason_for_no_guarantee']}")
    print(f"epsilon spent  {result.epsilon:.4f} at delta {result.delta:g}, after {result.steps} steps")
    print(f"sample grid    {result.samples}")
    print(f"release        {result.workdir / 'release'}")


@program
def draw(argv: Sequence[str]) -> None:
    parser = _parser("sample", "Draw synthetic images from a finished run.")
    parser.add_argument("--out", required=True, help="a new or empty directory")
    parser.add_argument("--n", type=int, default=1000, help="how many images, spread evenly over the classes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default=",".join(FORMATS), help="some of " + ",".join(FORMATS))
    args = parser.parse_args(argv)
    samples = sample(args.workdir, args.n, seed=args.seed, out=args.out, formats=args.formats.split(","))
    print(f"{len(samples.labels)} images of {len(samples.class_names)} classes in {args.out}")


@program
def score(argv: Sequence[str]) -> None:
    parser = _parser("evaluate", "Score a finished run against its real data.")
    parser.add_argument("--n", type=int, default=None, help="synthetic images; default: as many as real, at most 10000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classifiers", default=",".join(CLASSIFIERS), help="some of " + ",".join(CLASSIFIERS))
    args = parser.parse_args(argv)
    classifiers = tuple(args.classifiers.split(","))
    scores = evaluate(args.workdir, num_images=args.n, classifiers=classifiers, seed=args.seed)
    print(to_table(scores))
    print("These scores read real images: they are not covered by epsilon.")


@program
def publish(argv: Sequence[str]) -> None:
    parser = _Parser(
        prog="python -m efsgd_jax.release",
        description="Pack what a finished run may publish; refuse if anything in it is not covered by its epsilon.",
        allow_abbrev=False,
    )
    parser.add_argument("workdir", help="directory of the run")
    parser.add_argument("out", help="a new .zip file")
    args = parser.parse_args(argv)
    names = pack(args.workdir, args.out)
    print(f"{args.out}: {', '.join(names)}")
