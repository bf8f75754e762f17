"""The latent space in which components are fitted: partly whitened principal directions. All is post-processing."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.rounding import sum_of_squares


class Basis(NamedTuple):
    """The released principal directions of the vectors.

    Attributes:
      directions: orthonormal columns, ``[D, d]``; zeros for directions that were left out.
      variances: variance along each direction, ``[d]``; 0 for those left out.
      rest: mean variance along the directions outside of the basis, a scalar.
    """

    directions: jax.Array
    variances: jax.Array
    rest: jax.Array


class Latent(NamedTuple):
    """The latent space, in which the code of every record has norm at most 1.

    Attributes:
      means: smoothed class means, ``[K, D]``.
      basis: basis V, ``[D, d]``.
      unit: length in the space of the vectors that corresponds to a code of 1, for each direction, ``[d]``.
      spread: variance of the codes along each direction, ``[d]``; 0 for directions that were left out.
    """

    means: jax.Array
    basis: jax.Array
    unit: jax.Array
    spread: jax.Array

    def code(self, record: Any) -> jax.Array:
        """The code ``[d]`` of a record with ``x`` and ``label``, clipped to norm 1; zeros if its norm is not finite."""
        z = (record.x - self.means[record.label]) @ self.basis / self.unit
        norm = jnp.sqrt(sum_of_squares(z[None])[0])
        return jnp.where(jnp.isfinite(norm), z / jnp.maximum(norm, 1.0), 0.0)


def principal_basis(second_moment: jax.Array, directions: int, std: float) -> Basis:
    """Principal components of a noisy second moment ``[D, D]``.

    The noise is symmetric, with standard deviation ``std`` on the diagonal and ``std / sqrt(2)`` off it. By itself it
    has eigenvalues up to an edge, and it increases those of the signal above the edge (Benaych-Georges, Nadakuditi,
    2011). Directions whose eigenvalue is below the edge are left out; the variances of the others are corrected.

    Args:
      second_moment: the noisy second moment.
      directions: largest number of principal components.
      std: standard deviation of the noise.
    """
    size = len(second_moment)
    values, vectors = jnp.linalg.eigh(second_moment)
    directions = min(directions, size)
    kept, trace = values[::-1][:directions], jnp.sum(values)
    # Edge of Wigner's semicircle: 2 sqrt(D) times the standard deviation off the diagonal.
    edge = 2 * std * math.sqrt(size / 2)
    above = kept > max(edge, 1e-7)
    variances = jnp.where(above, (kept + jnp.sqrt(jnp.maximum(kept**2 - edge**2, 0.0))) / 2, 0.0)
    rest = jnp.maximum((trace - jnp.sum(variances)) / max(size - directions, 1), 1e-6)
    return Basis(vectors[:, ::-1][:, :directions] * above, variances, rest)


def latent_space(means: jax.Array, counts: jax.Array, std: jax.Array, basis: Basis) -> Latent:
    """The latent space for a basis and for noisy class means, whose sums have noise of ``std``.

    The directions are partly whitened (divided by the square root of their standard deviation), so that distances are
    dominated neither by the first directions nor by the last ones, which are mostly noise.

    Args:
      means: noisy class means, ``[K, D]``.
      counts: noisy number of records of each class, ``[K]``, by which the sums were divided.
      std: standard deviation of the noise on the sums.
      basis: the principal directions.
    """
    spread = jnp.sqrt(basis.variances)
    # The root mean square norm of a code is 1 / 1.3, so that few codes are clipped to norm 1. The lower bound is for a
    # basis without any direction, where every code is 0.
    radius = 1.3 * jnp.sqrt(jnp.maximum(jnp.sum(spread), 1e-12))
    unit = radius * jnp.where(spread > 0, jnp.sqrt(spread), 1.0)
    return Latent(_smooth(means, counts, basis, std), basis.directions, unit, spread / radius**2)


def _smooth(means: jax.Array, counts: jax.Array, basis: Basis, std: jax.Array) -> jax.Array:
    """Class means, shrunk towards the overall mean by a Wiener filter for noise of ``std`` on their sums.

    The filter assumes that, in each direction, class means vary about the overall mean as much as examples vary about
    their class mean.
    """
    overall = counts @ means / jnp.sum(counts)
    shift = means - overall
    noise = jnp.square(std / counts)[:, None]
    inside = shift @ basis.directions
    outside = shift - inside @ basis.directions.T
    variances = jnp.where(basis.variances > 0, basis.variances, 1.0)
    inside = inside * variances / (variances + noise)
    return overall + inside @ basis.directions.T + outside * basis.rest / (basis.rest + noise)
