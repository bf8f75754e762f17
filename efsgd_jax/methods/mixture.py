"""A mixture of Gaussians for each class, in a basis of principal components: what it is, how it draws and denoises.

    p(x | y) = sum_j w_yj N(m_y + V c_yj, V S_yj V^T + r (I - V V^T))

It is all that a few noisy sums can tell of images; ``mixture_fit`` makes it of them. Its posterior mean under Gaussian
noise is in closed form, which makes a denoiser of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mixture(NamedTuple):
    """K classes of M components each, of images of D pixels in a basis of d directions. Released.

    Attributes:
      means: m, ``[K, D]``, pixels in [-1, 1].
      basis: V, ``[D, d]``, orthonormal columns or zeros.
      weights: w, ``[K, M]``, rows sum to 1.
      centres: c, ``[K, M, d]``.
      axes: eigenvectors of S, ``[K, M, d, d]``, in columns.
      variances: eigenvalues of S, ``[K, M, d]``, at least 0.
      rest: r, variance of each pixel outside of the basis.
    """

    means: jax.Array
    basis: jax.Array
    weights: jax.Array
    centres: jax.Array
    axes: jax.Array
    variances: jax.Array
    rest: jax.Array


def draw(mixture: Mixture, key: jax.Array, labels: jax.Array) -> jax.Array:
    """Images ``[n, D]`` of int ``[n]`` classes, without the variance outside of the basis."""
    component_key, noise_key = jax.random.split(key)
    j = jax.random.categorical(component_key, jnp.log(mixture.weights)[labels])
    noise = jax.random.normal(noise_key, (labels.shape[0], mixture.basis.shape[1]))
    scaled = jnp.sqrt(mixture.variances[labels, j]) * noise
    z = mixture.centres[labels, j] + jnp.einsum("nde,ne->nd", mixture.axes[labels, j], scaled)
    return mixture.means[labels] + z @ mixture.basis.T


def posterior_mean(mixture: Mixture, noisy: jax.Array, std: jax.Array, label: jax.Array) -> jax.Array:
    """``E[x | x + std n = noisy, y = label]`` for one image ``[D]``: the best denoiser, were the mixture the truth."""
    shift = noisy - mixture.means[label]
    z = shift @ mixture.basis
    u = jnp.einsum("jde,jd->je", mixture.axes[label], z - mixture.centres[label])
    variances = mixture.variances[label]
    total = variances + jnp.square(std)
    log_density = jnp.log(mixture.weights[label]) - 0.5 * jnp.sum(jnp.square(u) / total + jnp.log(total), axis=-1)
    guesses = mixture.centres[label] + jnp.einsum("jde,je->jd", mixture.axes[label], variances / total * u)
    z_mean = jax.nn.softmax(log_density) @ guesses
    outside = mixture.rest / (mixture.rest + jnp.square(std)) * (shift - mixture.basis @ z)
    return mixture.means[label] + mixture.basis @ z_mean + outside


def posterior_std(mixture: Mixture, std: jax.Array) -> jax.Array:
    """Root mean square of what ``posterior_mean`` leaves, per pixel, averaged over components: ``[]`` for ``[]``."""
    noise = jnp.square(std)
    pixels, directions = mixture.basis.shape
    inside = jnp.sum(jnp.mean(mixture.variances * noise / (mixture.variances + noise), axis=(0, 1)))
    outside = (pixels - directions) * mixture.rest * noise / (mixture.rest + noise)
    return jnp.sqrt((inside + outside) / pixels)
