"""A mixture of Gaussians for each class, in a basis of principal components, and sampling from it.

    p(x | y) = sum_j w_yj N(m_y + V c_yj, V S_yj V^T)

``fit`` estimates it from noisy sums over the vectors x.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mixture(NamedTuple):
    """The released mixture: M components for each of K classes, over vectors of D numbers, in a basis of d directions.

    Attributes:
      means: class means m, ``[K, D]``.
      basis: basis V, ``[D, d]``; its columns are orthonormal, or zero for directions that were left out.
      weights: component weights w, ``[K, M]``; rows sum to 1.
      centres: component centres c, ``[K, M, d]``.
      axes: eigenvectors of the component covariances S, ``[K, M, d, d]``, in columns.
      variances: eigenvalues of the component covariances S, ``[K, M, d]``, at least 0.
    """

    means: jax.Array
    basis: jax.Array
    weights: jax.Array
    centres: jax.Array
    axes: jax.Array
    variances: jax.Array


def draw(mixture: Mixture, key: jax.Array, label: jax.Array) -> jax.Array:
    """Samples one vector ``[D]`` from the mixture of class ``label``."""
    component_key, noise_key = jax.random.split(key)
    j = jax.random.categorical(component_key, jnp.log(mixture.weights[label]))
    noise = jax.random.normal(noise_key, mixture.basis.shape[1:])
    z = mixture.centres[label, j] + mixture.axes[label, j] @ (jnp.sqrt(mixture.variances[label, j]) * noise)
    return mixture.means[label] + mixture.basis @ z


def code_scale(mixture: Mixture) -> jax.Array:
    """Root mean square of the codes z along each direction, ``[d]``, over all classes with equal
    weight; 1 for directions left out."""
    m = mixture
    inside = jnp.einsum("kmij,kmj->kmi", jnp.square(m.axes), m.variances)
    mean_square = jnp.mean(jnp.sum(m.weights[..., None] * (jnp.square(m.centres) + inside), axis=1), axis=0)
    return jnp.where(mean_square > 1e-12, jnp.sqrt(mean_square), 1.0)
