"""Random Fourier features: a linear classifier on them is one with a Gaussian kernel (Rahimi, Recht, 2007).

The frequencies are constants, the same in every run, and the features of an image are a function of that image alone.
They cost no privacy budget.
"""

import jax
import jax.numpy as jnp

# Precision of the Gaussian kernel exp(-GAMMA |a - b|^2) of features of norm 1.
GAMMA = 4.0


def random_fourier(features: jax.Array, count: int) -> jax.Array:
    """Cosines and sines of random linear functions of the features: ``[N, count]``, each row of norm 1.

    Args:
      features: float32 ``[N, F]``.
      count: number of random features, even.

    Examples:
      >>> random_fourier(jnp.eye(3), 4).shape
      (3, 4)
    """
    frequencies = (2 * GAMMA) ** 0.5 * jax.random.normal(jax.random.key(0), (features.shape[1], count // 2))
    angles = features @ frequencies
    return (2 / count) ** 0.5 * jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)
