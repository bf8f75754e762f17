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


@functools.cache
def compiler_options() -> dict[str, str | int]:
    """Of a training step, for ``jax.jit``: empty on accelerators; ``XLA_FLAGS`` goes first in what it speaks of.

    From jaxlib 0.10 on XLA leaves some of a CPU's work to YNNPACK. Of some programs, such as a softmax of a product
    with zeros, most compilations then give NaN (``benchmarks/compiler_faults.py``), and a convolution has a single
    thread, where XLA's own routine takes all cores: it is left out. And with less effort of LLVM a step compiles in two
    thirds of the time, and runs as fast (``benchmarks/compile.py``). The numbers are the same up to rounding.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, str | int] = {EFFORT: 1, YNNPACK: NOTHING}
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
