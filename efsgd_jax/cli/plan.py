"""``efsgd plan``: what a training step costs on devices that need not be there, without reading data."""

import argparse
import os
from collections.abc import Sequence

from efsgd_jax.cli.parser import Parser, program, read_config, show, split_overrides
from efsgd_jax.errors import UserError

MOST_DEVICES = 1024
EXAMPLES = """examples:
  efsgd plan --config=preset:fmnist --dataset_size=60000 --devices=1,8,64
  efsgd plan --config=preset:fmnist --dataset_size=60000 --config.train.expected_batch_size=16384"""
MEANING = """One step of DP-SGD, for each device: rows of its batch, floating-point operations, bytes that devices
exchange, the state and the records that it holds, and temporary memory; as XLA compiles it for CPUs. Nothing was
run."""


def make_parser() -> Parser:
    parser = Parser(
        "plan",
        description="What one step of training costs on a mesh of devices, which need not be there: operations, bytes "
        "that travel, memory. No data are read, and nothing is trained.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="config file, or preset:NAME")
    parser.add_argument("--dataset_size", type=int, required=True, help="number of training images")
    parser.add_argument("--shape", default="28x28x1", help="height x width x channels of an image")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--devices", default="1,8,64", help="numbers of devices, separated by commas")
    return parser.with_json()


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    args = make_parser().parse_args(rest)
    counts, shape = _numbers(args.devices, ",", "--devices=1,8,64"), _numbers(args.shape, "x", "--shape=28x28x1")
    if max(counts) > MOST_DEVICES:
        raise UserError(f"--devices={args.devices} asks for {max(counts)} devices; at most {MOST_DEVICES}")
    if len(shape) != 3 or shape[0] != shape[1] or shape[2] not in (1, 3):
        raise UserError(f"--shape={args.shape} is no shape of square images in grey or colour, such as 28x28x1")
    if args.dataset_size < 1 or args.classes < 1:
        raise UserError(f"--dataset_size={args.dataset_size} and --classes={args.classes} must be at least 1")
    # Read when JAX first looks for devices: as many virtual ones as the largest mesh has.
    flag = f"--xla_force_host_platform_device_count={max(counts)}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    os.environ["JAX_PLATFORMS"] = "cpu"
    from efsgd_jax.config import validate
    from efsgd_jax.data.dataset import ImageSpec
    from efsgd_jax.training.step_cost import step_cost

    config = read_config(args.config, overrides)
    validate(config)
    spec = ImageSpec(shape[0], shape[2], args.classes)
    costs = [step_cost(config, spec, args.dataset_size, count) for count in counts]
    lines = [f"{'devices':>7}  {'rows':>7}  {'Gflop':>9}  {'exchanged':>11}  {'held':>11}  {'working':>11}"]
    for cost in costs:
        sizes = [f"{x / 2**20:7.1f} MiB" for x in (sum(cost.exchanged.values()), cost.held, cost.working)]
        lines.append(f"{cost.devices:7}  {cost.rows:7}  {cost.operations / 1e9:9.2f}  {'  '.join(sizes)}")
    show(args, [cost._asdict() for cost in costs], "\n".join([*lines, "", MEANING]))


def _numbers(text: str, separator: str, example: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(separator)]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise UserError(f"{text!r} is no list of numbers of at least 1, such as {example}")
    return numbers
