"""Which convolution the networks use: XLA's, as everywhere in Flax, or on a CPU ours. It is decided here for all.

Layers are ``flax.linen.Conv``; as its ``conv_general_dilated_cls`` it has ``convolution``, which is called wherever a
program is traced. On a CPU our gradients are faster than XLA's (``benchmarks/training_step.py`` shows both), with the
same parameters and the same results up to rounding. The variable ``EFSGD_JAX_CONVOLUTION`` in the environment, ``xla``
or ``cpu``, forces one of them; set it before the program starts, since what was traced is kept.
"""

import os
from collections.abc import Callable, Sequence

import jax

from efsgd_jax.errors import UserError
from efsgd_jax.models import cpu_convolution

VARIABLE = "EFSGD_JAX_CONVOLUTION"


def ours() -> bool:
    """Whether a program that is traced now has our convolution."""
    choice = os.environ.get(VARIABLE) or ("cpu" if jax.default_backend() == "cpu" else "xla")
    if choice not in ("cpu", "xla"):
        raise UserError(f"{VARIABLE} is {choice!r} in the environment; set it to xla or cpu, or leave it out")
    return choice == "cpu"


def convolution() -> Callable[..., jax.Array]:
    """``jax.lax.conv_general_dilated``, or ours."""
    return cpu_convolution.conv_general_dilated if ours() else jax.lax.conv_general_dilated


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """``[B, H, W, C]`` and ``[h, w, C, F]`` give ``[B, H', W', F]``; for a kernel that no layer of Flax has."""
    return convolution()(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
