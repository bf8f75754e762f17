"""The compiler options with which training steps are compiled, those of classifiers that score images as well."""

import functools
import os

import jax

# XLA's option for the kinds of operations that it passes to YNNPACK (a library of CPU routines for neural networks),
# and its value for none of them.
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
NOTHING = ""
# XLA's option for LLVM's optimisation level. It does not affect the routines for convolutions and matrix products.
EFFORT = "xla_backend_optimization_level"
# Environment variable that sets this level, from 0 to 3. Level 0 is for programs that run only briefly, as in tests.
EFFORT_VARIABLE = "EFSGD_JAX_COMPILER_EFFORT"


@functools.cache
def compiler_options(lowest_level: int = 0) -> dict[str, str | int]:
    """The compiler options of a training step, for ``jax.jit``; empty on accelerators.

    Options that the environment variable ``XLA_FLAGS`` mentions are left to it, as are options that this version of XLA
    does not have.

    On CPUs, YNNPACK is switched off. From version 0.10 on, jaxlib's XLA passes some operations to it. Most compilations
    of some programs, such as a softmax of a product with zeros, then give NaN (``benchmarks/compiler_faults.py``), and
    convolutions use a single thread, whereas XLA's own routine uses all cores. LLVM's optimisation level is lowered to
    1: a step compiles in two thirds of the time and runs as fast (``benchmarks/compile.py``). Results are the same up
    to rounding.

    Args:
      lowest_level: the environment variable sets no level below this one. It is 1 for steps of which even tests take
        many.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, str | int] = {EFFORT: 1, YNNPACK: NOTHING}
    flags, effort = os.environ.get("XLA_FLAGS", ""), os.environ.get(EFFORT_VARIABLE, "")
    options = {name: value for name, value in options.items() if name not in flags}
    if effort in ("0", "1", "2", "3"):
        options[EFFORT] = max(int(effort), lowest_level)
    return {name: value for name, value in options.items() if _known(name, value)}


def _known(name: str, value: str | int) -> bool:
    """Whether this version of XLA has the option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
