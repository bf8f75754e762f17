"""The command line of ``efsgd evaluate``: parses arguments, calls ``evaluate`` and prints the scores."""

import sys
from collections.abc import Sequence
from typing import Any

import jax

from efsgd_jax.cli.parser import Parser, program, read_config, show, split_overrides
from efsgd_jax.evaluation.evaluate import evaluate, evaluate_samples
from efsgd_jax.evaluation.metrics import CLASSIFIERS, DEFAULT_CLASSIFIERS, FIDELITY, PROTOCOLS, only, to_json, to_table
from efsgd_jax.evaluation.scoring import METRICS


def make_parser() -> Parser:
    parser = Parser("evaluate", description="Score a finished run, or images from a file, by real data.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--workdir", help="directory of a finished run")
    what.add_argument(
        "--samples",
        help="images of whatever origin: a directory that sample wrote, class folders, Parquet, or an .npz file with "
        "x_train and, for utility, y_train; needs --config. Their scores are printed and cached, and are in no run",
    )
    parser.add_argument(
        "--samples_range", default="", help="values of the samples that become black and white, such as -1..1; "
        "default: 0..255 of integers, 0..1 of floats",
    )  # fmt: skip
    parser.add_argument("--config", help="with --samples: the config whose data they are scored against")
    parser.add_argument("--protocol", help="a published protocol, one of " + ",".join(PROTOCOLS))
    parser.add_argument(
        "--n",
        type=int,
        help="synthetic images; default: the protocol's number, else as many as "
        "real, at most 10000; another number than before replaces the run's scores",
    )
    parser.add_argument(
        "--seed", type=int, help="of the synthetic images; default 0; another than before replaces the run's scores"
    )
    parser.add_argument(
        "--metrics",
        help=f"some of {','.join((*METRICS, *FIDELITY))}; default: {','.join(METRICS)}, which are all; "
        "not with --protocol",
    )
    parser.add_argument(
        "--classifiers",
        help=f"some of {','.join(CLASSIFIERS)}; default: {','.join(DEFAULT_CLASSIFIERS)}; not with --protocol. "
        "They are for utility; fidelity and copying take their own time",
    )
    parser.add_argument(
        "--classifier_seeds", type=int, help="how many of each are trained; default 3; not with --protocol"
    )
    parser.add_argument(
        "--inception", help="the file of InceptionV3's weights, or 'download': also FID and the like of its features"
    )
    parser.epilog = "--config.KEY=VALUE changes one key of --config, such as --config.data.path=FILE"
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    parser = make_parser()
    overrides, rest = split_overrides(argv)
    args = parser.parse_args(rest)
    options: dict[str, Any] = {
        "metrics": _names(args.metrics),
        "classifiers": _names(args.classifiers),
        "classifier_seeds": args.classifier_seeds,
        "protocol": args.protocol,
        "inception": args.inception,
        "progress": True,
    }
    slow = PROTOCOLS[args.protocol].cost if args.protocol in PROTOCOLS and jax.default_backend() == "cpu" else ""
    if slow:
        print(f"protocol {args.protocol} takes about {slow} on two CPU cores: it is meant for a GPU", file=sys.stderr)
    if args.samples:
        if not args.config or args.n is not None or args.seed is not None:
            parser.error("--samples needs --config, and takes neither --n nor --seed")
        scores = evaluate_samples(
            args.samples, read_config(args.config, overrides), samples_range=args.samples_range, **options
        )
    else:
        if args.config or overrides:
            parser.error("--workdir knows its own configuration; leave --config out")
        scores = evaluate(args.workdir, num_images=args.n, seed=args.seed or 0, **options)
    note = "These scores read real images and are not covered by epsilon: publish only those of public images"
    note += "." if args.samples else ", or one with noise by `efsgd release_score`."
    scores = only(scores, options["metrics"])
    show(args, to_json(scores), f"{to_table(scores)}\n{note}")


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(text.split(","))
