"""``python -m efsgd_jax.privacy``: what a configuration costs, without touching data."""

import argparse
import functools
import sys
import warnings
from collections.abc import Iterable, Sequence

import absl.logging

from efsgd_jax.errors import UserError
from efsgd_jax.privacy.accounting import COARSE, FINE_ORDERS, epsilon
from efsgd_jax.privacy.calibration import calibrate_mechanism
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.privacy.mechanisms import LOCAL_OVERFLOW, Mechanism, dp_sgd_event
from efsgd_jax.privacy.published import SanitizedGan
from efsgd_jax.privacy.sampling import sample_capacity

EXAMPLES = """examples:
  python -m efsgd_jax.privacy --dataset_size=60000 --expected_batch_size=512 --steps=20000 --epsilon=10
  python -m efsgd_jax.privacy --dataset_size=60000 --expected_batch_size=512 --steps=20000 --noise_multiplier=0.9
  python -m efsgd_jax.privacy                  the tables of docs/privacy.md"""


def mechanism(args: argparse.Namespace) -> Mechanism:
    """The mechanism that the command line describes; its noise still 0 if it is to be solved for."""
    q = args.expected_batch_size / args.dataset_size
    overflow = LOCAL_OVERFLOW if args.feedback == "local" else None
    capacity = args.capacity or sample_capacity(args.dataset_size, q, overflow_probability=overflow)
    return Mechanism(
        dataset_size=args.dataset_size,
        sampling_probability=q,
        capacity=capacity,
        noise_multiplier=args.noise_multiplier or 0.0,
        l2_norm_clip=args.l2_norm_clip,
        feedback=args.feedback,
        feedback_l2_norm_clip=args.feedback_l2_norm_clip,
    )


def cost(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Rows of name and value for one configuration."""
    asked = mechanism(args)
    if not args.noise_multiplier:
        asked = calibrate_mechanism(asked, args.steps, args.epsilon, args.delta)
    ledger = Ledger(asked, args.epsilon or float("inf"), args.delta, args.steps)
    rdp = asked.epsilon(ledger.steps, args.delta, accountant="rdp", truncated=False, fresh_share=ledger.fresh_share)
    rows = [
        ("epsilon by PLD (proven)", f"{ledger.spent(ledger.steps):.4g}"),
        ("epsilon by RDP, without truncation", f"{rdp:.4g}"),
        ("delta", f"{args.delta:g}"),
        ("noise multiplier", f"{asked.noise_multiplier:.4g}"),
        ("steps", f"{ledger.steps}" + (f" of {args.steps}" if ledger.steps < args.steps else "")),
        ("sampling probability", f"{asked.sampling_probability:.6g}"),
        ("capacity of a batch", f"{asked.capacity}"),
        ("feedback", asked.feedback),
    ]
    if asked.feedback == "hidden":
        rows.append(("share of the noise's variance on fresh gradients", f"{ledger.fresh_share:.4f}"))
    if args.delta >= 1 / args.dataset_size:
        rows.append(("warning", f"delta is not below 1/N = {1 / args.dataset_size:.3g}"))
    return rows


def table(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:{width}}  {value}" for name, value in rows)


def lineage_rows(delta: float = 1e-5) -> list[tuple[str, str]]:
    """GS-WGAN and DP-GAN-DPAC, by every accounting."""
    return [(name, f"{value:#.3g}") for name, value in SanitizedGan().epsilons(delta).items()]


def accountant_rows(delta: float = 1e-5) -> list[tuple[str, str]]:
    """PLD against RDP."""
    event = dp_sgd_event(256 / 60_000, 0.5433, 4000)
    return [
        ("RDP", f"{epsilon(event, delta, accountant='rdp', orders=FINE_ORDERS):#.3g}"),
        ("PLD", f"{epsilon(event, delta):#.3g}"),
    ]


def mode_rows(
    dataset_size: int = 60_000, batch: int = 512, steps: int = 5000, target: float = 10.0, delta: float = 1e-5
) -> list[tuple[str, str]]:
    """The noise of each mode with C = 1: what stands beside the summed gradients, in units of C."""
    q = batch / dataset_size
    plain = Mechanism(dataset_size, q, sample_capacity(dataset_size, q), 0.0)
    padded = sample_capacity(dataset_size, q, overflow_probability=LOCAL_OVERFLOW)
    modes = [
        ("none", plain),
        ("local, D = 1", plain._replace(feedback="local", feedback_l2_norm_clip=1.0, capacity=padded)),
        ("private, D = 2", plain._replace(feedback="private", feedback_l2_norm_clip=2.0)),
        ("hidden, D = 0.01", plain._replace(feedback="hidden", feedback_l2_norm_clip=0.01)),
        ("hidden, D = 1", plain._replace(feedback="hidden", feedback_l2_norm_clip=1.0)),
    ]
    solved = [(name, calibrate_mechanism(m, steps, target, delta)) for name, m in modes]
    return [
        (
            name,
            f"sigma {m.noise_multiplier:.3f}  epsilon {Ledger(m, target, delta, steps).spent(steps, grid=COARSE):.2f}",
        )
        for name, m in solved
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m efsgd_jax.privacy",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = functools.partial(_error, parser)  # type: ignore[method-assign,assignment]
    parser.add_argument("--dataset_size", type=int, help="N")
    parser.add_argument("--expected_batch_size", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument(
        "--epsilon", type=float, help="target: the noise is solved for, or with --noise_multiplier the steps"
    )
    parser.add_argument("--noise_multiplier", type=float)
    parser.add_argument("--delta", type=float, default=1e-5)
    parser.add_argument("--capacity", type=int, help="padded batch size; default: chosen as training does")
    parser.add_argument("--feedback", default="none", choices=["none", "hidden", "local", "private"])
    parser.add_argument("--l2_norm_clip", type=float, default=1.0)
    parser.add_argument("--feedback_l2_norm_clip", type=float)
    return parser


def _error(parser: argparse.ArgumentParser, message: str) -> None:
    raise UserError(f"{message}; {parser.prog} --help lists the flags")


def _check(args: argparse.Namespace) -> None:
    for name in ("dataset_size", "expected_batch_size", "steps"):
        value = getattr(args, name)
        if value is None or value < 1:
            raise UserError(f"--{name} is {value}; give a number of at least 1")
    if args.expected_batch_size > args.dataset_size:
        raise UserError(f"--expected_batch_size is {args.expected_batch_size:g}, above N = {args.dataset_size}")
    if not (args.epsilon or args.noise_multiplier):
        raise UserError("give --epsilon, --noise_multiplier or both")
    for name in ("epsilon", "noise_multiplier", "l2_norm_clip", "feedback_l2_norm_clip"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} is {value}; it must be above 0")
    if not 0 < args.delta < 1:
        raise UserError(f"--delta is {args.delta}; it must be between 0 and 1")
    if (args.feedback == "none") != (args.feedback_l2_norm_clip is None):
        raise UserError("--feedback_l2_norm_clip belongs to --feedback=hidden, local or private, which need it")


def main(argv: Sequence[str] | None = None) -> int:
    absl.logging.set_verbosity(absl.logging.ERROR)  # RDP orders that do not converge are left out, which is sound
    warnings.simplefilter("ignore", RuntimeWarning)
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = _parser().parse_args(argv)
        if argv:
            _check(args)
            print(table(cost(args)))
            return 0
        print("GS-WGAN and DP-GAN-DPAC: K = 1000, sigma = 1.07, B = 32, T = 20000, delta = 1e-5")
        print(table(lineage_rows()))
        print("\nPLD and RDP: q = 256 / 60000, sigma = 0.5433, T = 4000, delta = 1e-5")
        print(table(accountant_rows()))
        print("\nNoise by feedback mode: epsilon 10, delta = 1e-5, N = 60000, B = 512, T = 5000, C = 1")
        print(table(mode_rows()))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
