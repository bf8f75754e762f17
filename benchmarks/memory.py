"""Peak memory of the discriminator's gradient against the batch size, by the compiler's own account: MiB.

    python benchmarks/memory.py --out=benchmarks/results/memory.json

Temporary memory of the compiled program (``memory_analysis``): activations, gradients per example, sums. What goes in
and comes out, the images and the parameters, is not counted; it is the same for all.
"""

import argparse
import sys
from typing import Any, Literal

import jax
import jax.numpy as jnp
from clipping import L2_NORM_CLIP, Problem
from provenance import provenance
from timing import write_record

from efsgd_jax.privacy import clipped_grad

LARGEST_WHOLE = 4096  # above it, only what is flat in the batch


def peak(problem: Problem, kind: str, batch_size: int, microbatch_size: Literal["auto"] | None) -> float:
    images = jax.ShapeDtypeStruct((batch_size, *problem.images.shape[1:]), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))

    def gradient(params: Any, images: jax.Array, labels: jax.Array, keys: jax.Array) -> Any:
        if kind == "plain":
            return problem.plain(params, images, labels)
        f = clipped_grad(problem.loss, L2_NORM_CLIP, method=kind, microbatch_size=microbatch_size)
        return f(params, (images, labels), keys).clipped_sum

    program = jax.jit(gradient).lower(problem.params, images, labels, keys).compile()
    return program.memory_analysis().temp_size_in_bytes / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="512,1024,4096,16384")
    parser.add_argument("--widths", default="8:32", help="width:max_width of the discriminator")
    parser.add_argument("--out", help="JSON file of results")
    args = parser.parse_args()
    problem = Problem(*map(int, args.widths.split(":")), 1)
    rows = {
        "plain, whole batch": ("plain", None), "ghost": ("ghost", "auto"), "ghost, whole batch": ("ghost", None),
        "vmap": ("vmap", "auto"), "vmap, whole batch": ("vmap", None),
    }  # fmt: skip
    batches = [int(b) for b in args.batches.split(",")]
    mib: dict[str, dict[str, float]] = {}
    for name, (kind, micro) in rows.items():
        fitting = [b for b in batches if micro or b <= LARGEST_WHOLE]
        mib[name] = {str(b): peak(problem, kind, b, micro) for b in fitting}
    print(f"| MiB at B = | {' | '.join(map(str, batches))} |\n|---{'|---' * len(batches)}|")
    for name, of in mib.items():
        print(f"| {name} | {' | '.join(f'{of[str(b)]:.0f}' if str(b) in of else '' for b in batches)} |")
    write_record(args.out, {**provenance(), "sizes": {k: v for k, v in vars(args).items() if k != "out"}, "mib": mib})
    return 0


if __name__ == "__main__":
    sys.exit(main())
