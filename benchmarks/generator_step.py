"""One whole step of sanitized_gan against a plain PyTorch loop for the same thing: ms per step.

    pip install -e '.[bench]'
    python benchmarks/generator_step.py --out=benchmarks/results/generator_step.json
    python benchmarks/generator_step.py --papers --members=20 --schedules=published

Ours is what training runs, ``make_update``: the draw of shards and images, critics' turns, the sanitised update of
the generator, Adam and the moving average. Theirs is ``torch_family.PlainLoop``: one discriminator after the other,
gradients of images clipped and noised before they go on into the generator, as the published code's hook does. Both
have the same networks, which is checked by parameter counts and by outputs on the same parameters, and the same
sizes: those of the config, changed by ``--config.KEY=VALUE`` or ``--papers``. Images are random, rounds interleaved.
PyTorch is timed on one thread and on as many as there are cores, and the faster counts. The machine must be idle: if
it is not, PyTorch's threads wait for each other ten times as long as they work.
"""

import argparse
import functools
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from first_step import state_and_inputs
from ml_collections import ConfigDict
from provenance import provenance
from timing import cores

from efsgd_jax.cli.parser import program, read_config, split_overrides
from efsgd_jax.config import validate
from efsgd_jax.errors import UserError
from efsgd_jax.models.critic import Critic
from efsgd_jax.synthesizers import method_named
from efsgd_jax.synthesizers.base import Record
from efsgd_jax.synthesizers.sanitized_gan.method import make_generator
from efsgd_jax.synthesizers.sanitized_gan.options import Hyperparameters
from efsgd_jax.training.update import make_update

try:
    import torch
    from torch_family import SPEC, PlainLoop, critics_of
except ImportError:
    print("error: this compares with PyTorch, which is missing: pip install 'efsgd_jax[bench]'", file=sys.stderr)
    sys.exit(2)

EXAMPLES = 60_000
# The papers' noise, whatever it guarantees here: nothing is solved for, and nothing is published.
BASE = ("privacy.noise_multiplier=1.07", "privacy.allow_unproven=true")
PAPERS = (
    "method.generator_width=64", "method.max_width=256", "method.critic_width=64", "method.critic_steps=5",
    "method.critic_batch_size=32", "train.images_per_step=32",
)  # fmt: skip


def check_alike(hp: Hyperparameters, state: Any, theirs: PlainLoop) -> dict[str, int]:
    """Asserts equal parameter counts, and outputs on the same parameters; returns the counts."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, SPEC.num_classes, 8)
    z, images = (rng.standard_normal(shape).astype(np.float32) for shape in ((8, hp.latent), (8, *SPEC.shape)))
    first = jax.tree.map(lambda x: x[0], critics_of(state))
    counts = {}
    for name, params, network in (
        ("generator", state.params, theirs.generator),
        ("critic", first, theirs.critics[0]),
    ):
        counts[name] = sum(x.size for x in jax.tree.leaves(params))
        assert counts[name] == sum(p.numel() for p in network.parameters()), name
    with torch.no_grad():
        y = torch.tensor(labels)
        drawn = theirs.generator(torch.tensor(z), y).permute(0, 2, 3, 1).numpy()
        scores = theirs.critics[0](torch.tensor(images).permute(0, 3, 1, 2), y).numpy()
    expected_images = jax.jit(make_generator(SPEC, hp).apply)(state.params, z, labels)
    expected_scores = jax.jit(Critic(SPEC, hp.critic_width).apply)(first, images, labels)
    np.testing.assert_allclose(drawn, expected_images, atol=1e-4)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-3, atol=1e-4)
    return counts


def compare(config: ConfigDict, rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds per step of every round, of ours and theirs in turn, theirs by the number of its threads."""
    method = method_named(config.method.name)
    hp, plan = method.read(config.method.to_dict()), method.plan(config, EXAMPLES)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, *SPEC.shape), np.uint8)
    labels = rng.integers(0, SPEC.num_classes, EXAMPLES).astype(np.int32)

    (phase,) = method.phases(SPEC, hp, plan, None)
    state, inputs = state_and_inputs(phase, Record(jnp.asarray(images), jnp.asarray(labels)))
    theirs = PlainLoop(hp, phase.plan.mechanism, state, images, labels)
    counts = check_alike(hp, state, theirs)
    update = make_update(phase)
    taken = 0

    def ours_steps() -> bool:
        nonlocal state, taken
        for _ in range(steps):
            state, metrics = update(state, jnp.int32(taken), inputs)
            taken += 1
        return bool(jnp.isfinite(jax.block_until_ready((state, metrics))[1]["generator"]))

    def torch_steps(threads: int) -> bool:
        torch.set_num_threads(threads)
        for _ in range(steps):
            loss = theirs.step()
        return bool(torch.isfinite(loss))

    run: dict[str, Callable[[], bool]] = {"ours": ours_steps}
    for threads in sorted({1, cores()}):
        run[f"torch, {threads} thread{'s' if threads > 1 else ''}"] = functools.partial(torch_steps, threads)
    times: dict[str, list[float]] = {name: [] for name in run}
    for i in range(rounds + 1):
        names = list(run)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            assert run[name](), f"{name}: not finite"
            if i > 0:  # the first compiles
                times[name].append(1e3 * (time.perf_counter() - start) / steps)
    return {"parameters": counts, "ms_per_step": times}


def fastest_torch(times: dict[str, list[float]]) -> str:
    return min((name for name in times if name != "ours"), key=lambda name: statistics.median(times[name]))


def ratios(times: dict[str, list[float]]) -> list[float]:
    """Ours as a multiple of torch's throughput, round by round."""
    return [t / o for o, t in zip(times["ours"], times[fastest_torch(times)], strict=True)]


def to_table(results: dict[str, dict[str, Any]]) -> str:
    """Medians, and the range over rounds; ratios are of the same round, to PyTorch's faster number of threads."""
    columns = list(next(iter(results.values()))["ms_per_step"])
    lines = [f"| schedule | {' | '.join(f'{c}, ms per step' for c in columns)} | times faster than torch |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for name, result in results.items():
        times = result["ms_per_step"]
        cells = [*(_spread(times[c], 1) for c in columns), _spread(ratios(times), 2)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], digits: int) -> str:
    low, middle, high = (f"{x:.{digits}f}" for x in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def configuration(args: argparse.Namespace, overrides: list[str], schedule: str) -> ConfigDict:
    """The config with the sizes that were asked for.

    Raises:
      UserError: an unknown key, a bad value, or a feature that ``PlainLoop`` does not have.
    """
    sizes = PAPERS if args.papers else ()
    config = read_config(args.config, [*BASE, *sizes, *overrides, f"privacy.schedule={schedule}"])
    if args.members:
        config.privacy.num_shards = args.members
    validate(config)
    m = config.method
    if m.name != "sanitized_gan" or m.noise_injection or m.classifier_weight or m.reconstruction_weight:
        raise UserError("the loop in PyTorch is sanitized_gan without noise injection, classifier and reconstruction")
    if config.privacy.feedback != "none":
        raise UserError("the loop in PyTorch has no error feedback; leave config.privacy.feedback at none")
    return config


@program
def main(argv: Sequence[str]) -> None:
    overrides, rest = split_overrides(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/sanitized_fmnist_small.py")
    parser.add_argument("--papers", action="store_true", help="the published widths, batches and critic steps")
    parser.add_argument("--members", type=int, help="K; the config's where not given")
    parser.add_argument("--schedules", default="published,independent", help="separated by commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="of each in a round")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args(rest)
    if jax.default_backend() != "cpu":
        raise UserError("the loop in PyTorch runs on the CPU; run this with JAX_PLATFORMS=cpu")
    configs = {name: configuration(args, overrides, name) for name in args.schedules.split(",")}
    record = {**provenance(), "torch": torch.__version__, "schedules": {}}
    for name, config in configs.items():
        result = compare(config, args.rounds, args.steps)
        record["schedules"][name] = {"config": json.loads(config.to_json_best_effort()), **result}
        gc.collect()
    print(to_table(record["schedules"]))
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
