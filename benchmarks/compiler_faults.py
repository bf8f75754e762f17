"""How many compilations of one small program give NaN, with XLA's defaults on a CPU and without YNNPACK.

    python benchmarks/compiler_faults.py --out=benchmarks/results/compiler_faults.json

The program is the error of a linear classifier whose weights are zero: finite whatever the data. Two minutes at most.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from provenance import provenance
from timing import write_record

from efsgd_jax.training.compilation import compiler_options


def error(x: jax.Array) -> jax.Array:
    return jax.nn.softmax(0.04 * x @ jnp.zeros((226, 2))) - jax.nn.one_hot(0, 2)


def not_finite(compile_it: Callable[[], Callable[[np.ndarray], jax.Array]], times: int) -> int:
    x = np.random.default_rng(0).integers(0, 26, (6001, 226)).astype(np.float32)
    found = 0
    for _ in range(times):
        jax.clear_caches()
        found += not bool(jnp.isfinite(compile_it()(x)).all())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40, help="compilations of each kind")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    record = {
        **provenance(),
        "compilations": args.times,
        "NaN with the defaults of XLA": not_finite(lambda: jax.jit(lambda x: error(x)), args.times),
        "NaN with the options of training": not_finite(
            lambda: jax.jit(lambda x: error(x), compiler_options=compiler_options()), args.times
        ),
    }
    print({k: v for k, v in record.items() if "NaN" in k}, "of", args.times)
    write_record(args.out, record)


if __name__ == "__main__":
    main()
