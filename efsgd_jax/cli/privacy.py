"""``efsgd privacy``: computes the epsilon or the noise of a configuration, without reading data."""

import argparse
import math
import sys
from collections.abc import Iterable, Sequence

from efsgd_jax.cli.parser import Parser, program, read_config, show, split_overrides
from efsgd_jax.errors import UserError
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy.accounting import FINE, FINE_ORDERS, epsilon
from efsgd_jax.privacy.calibration import calibrate_mechanism
from efsgd_jax.privacy.dp_sgd import LOCAL_OVERFLOW, DpSgdMechanism
from efsgd_jax.privacy.dp_sgd_events import dp_sgd_event
from efsgd_jax.privacy.ledger import Ledger
from efsgd_jax.privacy.plan import Composition, PlannedPhase
from efsgd_jax.privacy.sampling import sample_capacity
from efsgd_jax.runs.privacy_markdown import shown_parameters
from efsgd_jax.synthesizers.sanitized_gan.mechanism import ShardMechanism
from efsgd_jax.synthesizers.sanitized_gan.published_accounting import SanitizedGan

EXAMPLES = """examples:
  efsgd privacy --dataset_size=60000 --expected_batch_size=512 --steps=20000 --epsilon=10
  efsgd privacy --dataset_size=60000 --expected_batch_size=512 --steps=20000 --noise_multiplier=0.9
  efsgd privacy --dataset_size=60000 --config=configs/fmnist.py --config.privacy.epsilon=1
  efsgd privacy                  mechanisms of published papers"""


def mechanism(args: argparse.Namespace) -> DpSgdMechanism:
    """The mechanism that the flags describe; its noise multiplier is 0 if it has to be calibrated."""
    q = args.expected_batch_size / args.dataset_size
    overflow = LOCAL_OVERFLOW if args.feedback == "local" else None
    capacity = args.capacity or sample_capacity(args.dataset_size, q, overflow_probability=overflow)
    return DpSgdMechanism(
        dataset_size=args.dataset_size,
        sampling_probability=q,
        capacity=capacity,
        noise_multiplier=args.noise_multiplier or 0.0,
        l2_norm_clip=args.l2_norm_clip,
        feedback=args.feedback,
        feedback_l2_norm_clip=args.feedback_l2_norm_clip,
    )


def ledger_of(args: argparse.Namespace, overrides: Sequence[str]) -> Ledger[Composition]:
    """The ledger of the mechanism that the flags describe or, if there is a config, of a training run with it."""
    if args.config or overrides:
        from efsgd_jax.config import validate
        from efsgd_jax.training.setup import make_ledger

        config = read_config(args.config, overrides)
        validate(config)
        if args.dataset_size is None:
            raise UserError("a config needs the number of training images too: --dataset_size=60000, for instance")
        return make_ledger(config, args.dataset_size)
    asked = mechanism(args)
    if not args.noise_multiplier and args.epsilon != math.inf:
        asked = calibrate_mechanism(asked, args.steps, args.epsilon, args.delta)
    plan = Composition((PlannedPhase("training", asked, args.steps),))
    return Ledger(plan, args.epsilon or float("inf"), args.delta, args.steps)


def cost(ledger: Ledger[Composition]) -> list[tuple[str, str]]:
    """The rows to print, each a name and a value, for one configuration."""
    plan, delta, planned = ledger.mechanism, ledger.delta, ledger.planned_steps
    spent = ledger.spent(ledger.steps, grid=FINE)
    described = [(p.name, count, m.describe(count, delta, spent)) for p, m, count in plan.taken(ledger.steps)]
    rows = [
        ("epsilon by PLD (proven)", format_epsilon(spent)),
        ("epsilon by RDP, without truncation", format_epsilon(ledger.rdp_untruncated(ledger.steps))),
        ("delta", f"{delta:g}"),
        ("steps", f"{ledger.steps}" + (f" of {planned}" if ledger.steps < planned else "")),
    ]
    # A method with published accountings shows the epsilon of each in the place of the first two rows.
    for _, _, found in described:
        if found.accountings:
            meanings = found.accounting_meanings
            rows[:2] = [
                (f"epsilon {meanings[name]}", format_epsilon(value)) for name, value in found.accountings.items()
            ]
    shown = (
        "noise_multiplier", "budget_noise", "sampling_probability", "capacity", "share", "schedule", "num_shards",
        "feedback", "fresh_share",
    )  # fmt: skip
    for phase, count, found in described:
        before = f"{phase}: " if len(described) > 1 else ""
        if before:
            rows.append((f"{before}steps", str(count)))
        for name in shown:
            value = shown_parameters(found.parameters).get(name)
            if value is not None:
                text = f"{value:.{4 if 'noise' in name else 6}g}" if isinstance(value, float) else f"{value}"
                rows.append((f"{before}{name.replace('_', ' ')}", text))
    if delta >= 1 / plan.dataset_size:
        rows.append(("warning", f"delta is not below 1/N = {1 / plan.dataset_size:.3g}"))
    return rows


def table(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:{width}}  {value}" for name, value in rows)


def lineage_rows(delta: float = 1e-5) -> list[tuple[str, str]]:
    """Epsilons of GS-WGAN and DP-GAN-DPAC with their published settings, by every accounting and schedule.

    The accountings are methods of ``SanitizedGan``; the schedules, by which shards are chosen for a step, are those of
    ``ShardMechanism``.
    """
    published = SanitizedGan()
    schedules = ShardMechanism(
        dataset_size=60_000,
        num_shards=published.num_shards,
        schedule="published",
        noise_multiplier=published.noise_multiplier,
    )
    values = {
        "as published: one-of-K, T*B times, RDP of Wang et al., replace one": published.by_wang_et_al(delta),
        "the same by dp-accounting's RDP": published.as_published(delta),
        "shared draw, RDP": published.shared_draw(delta, accountant="rdp"),
        "shared draw, PLD": published.shared_draw(delta),
        "proven, schedule=published: draws revealed": schedules.epsilon(published.steps, delta),
        "proven, schedule=round_robin: PLD": schedules._replace(schedule="round_robin").epsilon(published.steps, delta),
        "proven, schedule=independent: PLD": schedules._replace(schedule="independent").epsilon(published.steps, delta),
        "proven, schedule=parameter: PLD": schedules._replace(schedule="parameter").epsilon(published.steps, delta),
    }
    return [(name, format_epsilon(value)) for name, value in values.items()]


def accountant_rows(delta: float = 1e-5) -> list[tuple[str, str]]:
    """Epsilon of the same DP-SGD run by RDP and by PLD; ``main`` prints the run's settings."""
    event = dp_sgd_event(256 / 60_000, 0.5433, 4000)
    return [
        ("RDP", format_epsilon(epsilon(event, delta, accountant="rdp", orders=FINE_ORDERS))),
        ("PLD", format_epsilon(epsilon(event, delta))),
    ]


def mode_rows(
    dataset_size: int = 60_000, batch: int = 512, steps: int = 5000, target: float = 10.0, delta: float = 1e-5
) -> list[tuple[str, str]]:
    """The noise multiplier sigma with which each feedback mode spends the target epsilon, and the epsilon spent.

    The clip norm C of gradients is 1; D is the value of ``feedback_l2_norm_clip``.

    Args:
      dataset_size: number N of records.
      batch: expected batch size.
      steps: number of steps.
      target: the target epsilon.
      delta: delta of the guarantee.
    """
    q = batch / dataset_size
    plain = DpSgdMechanism(dataset_size, q, sample_capacity(dataset_size, q), 0.0)
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
            f"sigma {m.noise_multiplier:.3f}  epsilon {format_epsilon(Ledger(m, target, delta, steps).spent(steps))}",
        )
        for name, m in solved
    ]


def make_parser() -> Parser:
    parser = Parser(
        "privacy",
        description="Compute the epsilon or the noise of a planned run, without reading data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset_size", type=int, help="N, the number of training images or, with groups, of persons")
    parser.add_argument(
        "--config", help="a config, with --dataset_size and --config.KEY=VALUE, in the place of the other flags"
    )
    parser.add_argument("--expected_batch_size", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument(
        "--epsilon",
        type=float,
        help="target: the noise is solved for, or with --noise_multiplier the number of steps, up to --steps",
    )
    parser.add_argument("--noise_multiplier", type=float)
    parser.add_argument("--delta", type=float, help="default 1e-5")
    parser.add_argument("--capacity", type=int, help="padded batch size; default: chosen as training does")
    parser.add_argument("--feedback", default="none", choices=["none", "hidden", "local", "private"])
    parser.add_argument("--l2_norm_clip", type=float, default=1.0)
    parser.add_argument("--feedback_l2_norm_clip", type=float)
    return parser.with_json()


def _check(args: argparse.Namespace, *, from_config: bool) -> None:
    for name in ("dataset_size",) if from_config else ("dataset_size", "expected_batch_size", "steps"):
        value = getattr(args, name)
        if value is None or value < 1:
            most = "; it is the largest number to consider" if name == "steps" and args.noise_multiplier else ""
            raise UserError(f"--{name} is {'missing' if value is None else value}; give a number of at least 1{most}")
    if from_config:
        for name in ("expected_batch_size", "steps", "epsilon", "delta", "noise_multiplier", "feedback_l2_norm_clip"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name} and --config: a config says that itself; use --config.KEY=VALUE")
        return
    if args.expected_batch_size > args.dataset_size:
        raise UserError(f"--expected_batch_size is {args.expected_batch_size:g}, above N = {args.dataset_size}")
    if not (args.epsilon or args.noise_multiplier):
        raise UserError("give --epsilon, --noise_multiplier or both")
    args.delta = 1e-5 if args.delta is None else args.delta
    for name in ("epsilon", "noise_multiplier", "l2_norm_clip", "feedback_l2_norm_clip"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} is {value}; it must be above 0")
    if not 0 < args.delta < 1:
        raise UserError(f"--delta is {args.delta}; it must be between 0 and 1")
    if (args.feedback == "none") != (args.feedback_l2_norm_clip is None):
        raise UserError("--feedback_l2_norm_clip belongs to --feedback=hidden, local or private, which need it")


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    args = make_parser().parse_args(rest)
    if [*rest, *overrides] != ["--json"] and argv:
        _check(args, from_config=bool(args.config or overrides))
        rows = cost(ledger_of(args, overrides))
        show(args, dict(rows), table(rows))
        return
    if args.json:
        raise UserError("--json needs --dataset_size and what it is asked about")
    print("GS-WGAN and DP-GAN-DPAC: K = 1000, sigma = 1.07, B = 32, T = 20000, delta = 1e-5")
    print(table(lineage_rows()))
    print("\nPLD and RDP: q = 256 / 60000, sigma = 0.5433, T = 4000, delta = 1e-5")
    print(table(accountant_rows()))
    print("\nNoise by feedback mode: epsilon 10, delta = 1e-5, N = 60000, B = 512, T = 5000, C = 1")
    print(table(mode_rows()))


if __name__ == "__main__":
    sys.exit(main())
