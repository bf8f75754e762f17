"""A mixture of Gaussians for each class, in a basis of principal components: what it is and how it draws.

    p(x | y) = sum_j w_yj N(m_y + V c_yj, V S_yj V^T)

It is all that a few noisy sums can tell of vectors x; ``fit`` makes it of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mixture(NamedTuple):
    """K classes of M components each, of vectors of size D in a basis of d directions. Released.

    Attributes:
      means: m, ``[K, D]``.
      basis: V, ``[D, d]``, orthonormal columns or zeros.
      weights: w, ``[K, M]``, rows sum to 1.
      centres: c, ``[K, M, d]``.
      axes: eigenvectors of S, ``[K, M, d, d]``, in columns.
      variances: eigenvalues of S, ``[K, M, d]``, at least 0.
    """

    means: jax.Array
    basis: jax.Array
    weights: jax.Array
    centres: jax.Array
    axes: jax.Array
    variances: jax.Array


def draw(mixture: Mixture, key: jax.Array, label: jax.Array) -> jax.Array:
    """One vector ``[D]`` of one class."""
    component_key, noise_key = jax.random.split(key)
    j = jax.random.categorical(component_key, jnp.log(mixture.weights[label]))
    noise = jax.random.normal(noise_key, mixture.basis.shape[1:])
    z = mixture.centres[label, j] + mixture.axes[label, j] @ (jnp.sqrt(mixture.variances[label, j]) * noise)
    return mixture.means[label] + mixture.basis @ z
