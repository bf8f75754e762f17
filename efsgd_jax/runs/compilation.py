"""What is asked of the compiler beside the program."""

import functools
import os

import jax

# The kinds of work that XLA leaves to YNNPACK, and none of them.
YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
NOTHING = ""


def cores() -> int:
    """That this process may use, which is how many threads XLA takes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def compiler_options() -> dict[str, str]:
    """Of a training step, for ``jax.jit``: empty where the default is best or ``XLA_FLAGS`` has its own say.

    From jaxlib 0.10 on XLA leaves a CPU's convolutions to YNNPACK, which works on each with a single thread, where
    XLA's own routine takes all cores. The numbers are the same up to rounding.
    """
    if jax.default_backend() != "cpu" or cores() == 1 or YNNPACK in os.environ.get("XLA_FLAGS", ""):
        return {}
    options = {YNNPACK: NOTHING}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:  # a version of XLA that does not know the option
        return {}
    return options
