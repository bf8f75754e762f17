"""How long until the first step: importing, compiling, and what the compiler's options do to a step: seconds and ms.

    python benchmarks/compile.py --out=benchmarks/results/compile.json

Each number is of a process of its own, without a cache of compiled programs. Steps are those of the first phase.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from timing import spread, write_record

TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
IMPORT = TIMED.format("import efsgd_jax.train")
PUBLIC = TIMED.format("from efsgd_jax import error_feedback_aggregate")
EFFORT = "--xla_backend_optimization_level=3"
STEPS = 20


def child(config: str) -> None:
    """Prints what the first step, and later ones, took in this process."""
    import jax
    import jax.numpy as jnp
    from first_step import state_and_inputs

    from efsgd_jax.cli.parser import read_config
    from efsgd_jax.synthesizers.base import Record
    from efsgd_jax.training.setup import prepare
    from efsgd_jax.training.update import make_update

    setup = prepare(read_config(config, []))
    phase = setup.phases[0]
    records = Record(jnp.asarray(setup.dataset.train_images), jnp.asarray(setup.dataset.train_labels))
    start = time.perf_counter()
    state, inputs = jax.block_until_ready(state_and_inputs(phase, records))
    ready = time.perf_counter()
    update = make_update(phase)
    state, _ = jax.block_until_ready(update(state, jnp.int32(0), inputs))
    first = time.perf_counter()
    for step in range(1, STEPS + 1):
        state, _ = update(state, jnp.int32(step), inputs)
    jax.block_until_ready(state)
    step = (time.perf_counter() - first) / STEPS
    print(json.dumps({"init": ready - start, "first_step": first - ready, "ms_per_step": 1e3 * step}))


def run(*arguments: str, flags: str = "") -> str:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | {"XLA_FLAGS": flags}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/efsgd_digits.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    if args.child:
        child(args.config)
        return 0
    run("-c", IMPORT)  # reads files and writes bytecode for the first time
    record: dict[str, list[float]] = {"import efsgd_jax.train": [], "import of the transform": []}
    for _ in range(args.rounds):
        record["import efsgd_jax.train"].append(float(run("-c", IMPORT)))
        record["import of the transform"].append(float(run("-c", PUBLIC)))
        for name, flags in (("ours", ""), ("LLVM's full effort", EFFORT)):
            result = json.loads(run(__file__, "--child", f"--config={args.config}", flags=flags))
            for key, value in result.items():
                record.setdefault(f"{key}, {name}", []).append(value)
    print("| | seconds (ms per step) |\n|---|---|")
    for name, values in record.items():
        print(f"| {name} | {spread(values)} |")
    from provenance import provenance

    sizes = {k: v for k, v in vars(args).items() if k not in ("out", "child")}
    write_record(args.out, {**provenance(), "sizes": sizes, "seconds": record})
    return 0


if __name__ == "__main__":
    sys.exit(main())
