"""What is asked of the compiler beside the program."""

import functools
import os

import jax

# Which work XLA gives to YNNPACK: nothing but matrix products.
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
ONLY_PRODUCTS = "LIBRARY_FUSION_TYPE_DOT"


def cores() -> int:
    """That this process may use, which is how many threads XLA takes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def compiler_options() -> dict[str, str]:
    """Of a training step, for ``jax.jit``: empty where the default is best or ``XLA_FLAGS`` has its own say.

    From jaxlib 0.10 on XLA leaves a CPU's convolutions to YNNPACK, which works on each with a single thread; XLA's
    own routine takes all cores. With two of them a step of the family's small recipe takes 0.8 times as long
    (``benchmarks/generator_step.py``). The numbers are the same up to rounding.
    """
    if jax.default_backend() != "cpu" or cores() == 1 or YNNPACK in os.environ.get("XLA_FLAGS", ""):
        return {}
    options = {YNNPACK: ONLY_PRODUCTS}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # a version of XLA that does not know the option
        return {}
    return options
