"""A method's whole training step, private against plain: ms per step, and the share of time outside of compute.

    python benchmarks/training_step.py --out=benchmarks/results/training_step.json
    python benchmarks/training_step.py --config=configs/fmnist.py --baselines=plain:32,ghost:32,vmap:32 --repeats=1

It is the step of the method's last phase; what phases before it would release has random values. For `efsgd_gan` a step
is what ``fit`` runs: the Poisson sample, gradients of real and of generated images, clipping, feedback, noise,
Adam, the generator's own step, the moving average. *Plain* is the same step with the batch's summed gradient and no
noise, in the form that is fastest. On a CPU the networks have our convolution (``models/convolution.py``), or XLA's
where a row says so. Rounds are interleaved. *Outside of compute* is the time in which the main thread
holds a step that was not asked for yet: Python, and the dispatch.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from baselines import EXAMPLES, gradients_by, phase_by, random_records
from first_step import state_and_inputs
from ml_collections import ConfigDict
from provenance import provenance
from timing import fastest, in_turn, ratios, spread, write_record

from efsgd_jax.cli.parser import read_config
from efsgd_jax.models.convolution import VARIABLE
from efsgd_jax.privacy import PlannedPhase
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.training.setup import make_ledger
from efsgd_jax.training.update import make_update

OVERHEAD_STEPS = 30


class Baseline:
    """One way to take steps: gradients by ``kind``, and the convolution ``cpu`` or ``xla`` (or the default, "")."""

    def __init__(
        self,
        kind: str,
        microbatch_size: int | None,
        convolution: str,
        config: ConfigDict,
        plan: Sequence[PlannedPhase],
        records: Record,
    ) -> None:
        self.steps = 0
        with gradients_by(kind), mock.patch.dict(os.environ, {VARIABLE: convolution}):
            phase, released = phase_by(kind, microbatch_size, config, plan)
            self.state, self.inputs = state_and_inputs(phase, records, released)
            start = time.perf_counter()
            self.update = make_update(phase).lower(self.state, jnp.int32(0), self.inputs).compile()
        self.compile_seconds = time.perf_counter() - start

    def dispatch(self) -> Any:
        """Asks for the next step: what it will give."""
        self.state, metrics = self.update(self.state, jnp.int32(self.steps), self.inputs)
        self.steps += 1
        return self.state, metrics

    def __call__(self) -> None:
        jax.block_until_ready(self.dispatch())

    def outside(self) -> float:
        """Share of time until the device has its next step, when it is asked only after the one before is done."""
        start, waited = time.perf_counter(), 0.0
        for _ in range(OVERHEAD_STEPS):
            given = self.dispatch()
            asked = time.perf_counter()
            jax.block_until_ready(given)
            waited += time.perf_counter() - asked
        return 1 - waited / (time.perf_counter() - start)


def to_table(times: dict[str, list[float]]) -> str:
    plain = fastest(times, [name for name in times if name.startswith("plain")])
    lines = ["| | ms per step | of the fastest plain step |", "|---|---|---|"]
    for name, values in times.items():
        lines.append(f"| {name} | {spread(values, 1)} | {spread(ratios(values, times[plain]))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/efsgd_fmnist.py")
    parser.add_argument(
        "--baselines", default="plain:32,plain:64,plain:0,ghost:32,ghost:64,vmap:32,plain:64:xla,ghost:64:xla",
        help="kind:microbatch_size, 0 for the whole batch; with :xla for XLA's convolution",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3, help="steps in one turn")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    config, records = read_config(args.config, []), random_records()
    plan = make_ledger(config, EXAMPLES).mechanism.phases
    run = {}
    for baseline in args.baselines.split(","):
        kind, size, convolution = (*baseline.split(":"), "")[:3]
        name = f"{kind}, {'microbatches of ' + size if int(size) else 'whole batch'}"
        name += ", XLA's convolution" if convolution == "xla" else ""
        run[name] = Baseline(kind, int(size) or None, convolution, config, plan, records)
    times = in_turn(run, args.rounds, args.repeats)
    print(to_table(times))
    private = fastest(times, [name for name in times if name.startswith("ghost")])
    outside = [run[private].outside() for _ in range(5)]
    print(f"outside of compute, {private}: {100 * statistics.median(outside):.1f}% of the time")
    seconds = {name: baseline.compile_seconds for name, baseline in run.items()}
    sizes = {k: v for k, v in vars(args).items() if k != "out"}
    write_record(
        args.out, {**provenance(), "sizes": sizes, "compile_seconds": seconds, "outside": outside, "ms": times}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
