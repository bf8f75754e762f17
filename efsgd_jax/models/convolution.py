"""Chooses the convolution of all networks: XLA's, as usual in Flax, or on a CPU that of ``cpu_convolution.py``.

The layers are ``flax.linen.Conv`` with ``convolution`` as ``conv_general_dilated_cls``, which Flax calls whenever a
program is traced. On a CPU the gradients of ``cpu_convolution.py`` are faster than XLA's
(``benchmarks/training_step.py`` measures both). Parameters are the same, and results are the same up to rounding. The
environment variable ``EFSGD_JAX_CONVOLUTION``, ``xla`` or ``cpu``, forces one of them. Set it before the program
starts, because JAX does not trace a compiled function again when the variable changes.
"""

import os
from collections.abc import Callable, Sequence

import jax

from efsgd_jax.errors import UserError
from efsgd_jax.models import cpu_convolution

VARIABLE = "EFSGD_JAX_CONVOLUTION"


def ours() -> bool:
    """Whether a program that is traced now uses the convolution of ``cpu_convolution.py``.

    Raises:
      UserError: the environment variable is neither ``xla`` nor ``cpu``.
    """
    choice = os.environ.get(VARIABLE) or ("cpu" if jax.default_backend() == "cpu" else "xla")
    if choice not in ("cpu", "xla"):
        raise UserError(f"{VARIABLE} is {choice!r} in the environment; set it to xla or cpu, or leave it out")
    return choice == "cpu"


def convolution() -> Callable[..., jax.Array]:
    """``jax.lax.conv_general_dilated``, or the function of this name in ``cpu_convolution.py``."""
    return cpu_convolution.conv_general_dilated if ours() else jax.lax.conv_general_dilated


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """Convolves images by a kernel that the caller holds itself, rather than through ``flax.linen.Conv``.

    Args:
      x: images, ``[B, H, W, C]``.
      kernel: the kernel, ``[h, w, C, F]``.
      stride: step between windows, along both axes.
      padding: zeros before and after the image, for each of the two axes.

    Returns:
      ``[B, H', W', F]``.
    """
    return convolution()(x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
