"""What is asked of the compiler beside the program."""

import functools
import os

import jax

# The kinds of work that XLA leaves to YNNPACK, and none of them.
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
NOTHING = ""
# How long LLVM works on the code between the routines for convolutions and products.
EFFORT = "xla_backend_optimization_level"
# An environment variable that sets it, from 0 to 3: 0 for programs that run for a moment only, as in tests.
EFFORT_VARIABLE = "EFSGD_JAX_COMPILER_EFFORT"


def cores() -> int:
    """That this process may use, which is how many threads XLA takes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def compiler_options() -> dict[str, str | int]:
    """Of a training step, for ``jax.jit``: empty on accelerators; ``XLA_FLAGS`` goes first in what it speaks of.

    From jaxlib 0.10 on XLA leaves a CPU's convolutions to YNNPACK, which works on each with a single thread, where
    XLA's own routine takes all cores. And with less effort of LLVM a step compiles in two thirds of the time, and runs
    as fast (``benchmarks/compile.py``). The numbers are the same up to rounding.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, str | int] = {EFFORT: 1}
    if cores() > 1:
        options[YNNPACK] = NOTHING
    flags, effort = os.environ.get("XLA_FLAGS", ""), os.environ.get(EFFORT_VARIABLE, "")
    options = {name: value for name, value in options.items() if name not in flags}
    if effort in ("0", "1", "2", "3"):
        options[EFFORT] = int(effort)
    return {name: value for name, value in options.items() if _known(name, value)}


def _known(name: str, value: str | int) -> bool:
    """Whether this version of XLA has the option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
