"""The space in which components are fitted: principal directions of the vectors, partly whitened. Post-processing."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.rounding import sum_of_squares


class Basis(NamedTuple):
    """Released: ``directions`` ``[D, d]`` with zeros for those that are not there, their ``variances`` ``[d]``, and the
    ``rest``, the mean variance of a direction outside."""

    directions: jax.Array
    variances: jax.Array
    rest: jax.Array


class Latent(NamedTuple):
    """Where records have codes of length 1 at most.

    Attributes:
      means: class means, smoothed, ``[K, D]``.
      basis: V, ``[D, d]``.
      unit: what a code of 1 stands for in each direction, ``[d]``.
      spread: the variances of codes, ``[d]``; 0 where there is no direction.
    """

    means: jax.Array
    basis: jax.Array
    unit: jax.Array
    spread: jax.Array

    def code(self, record: Any) -> jax.Array:
        """``[d]`` of a record with ``x`` and ``label``, clipped to length 1."""
        z = (record.x - self.means[record.label]) @ self.basis / self.unit
        norm = jnp.sqrt(sum_of_squares(z[None])[0])
        return jnp.where(jnp.isfinite(norm), z / jnp.maximum(norm, 1.0), 0.0)


def principal_basis(second_moment: jax.Array, directions: int, std: float) -> Basis:
    """Principal components of a second moment ``[D, D]`` with symmetric noise of ``std`` on its diagonal.

    The noise alone has eigenvalues up to an edge, and pushes those above it up (Benaych-Georges, Nadakuditi, 2011):
    directions below it are left out, the variances of the others are corrected.
    """
    size = len(second_moment)
    values, vectors = jnp.linalg.eigh(second_moment)
    directions = min(directions, size)
    kept, trace = values[::-1][:directions], jnp.sum(values)
    edge = 2 * std * math.sqrt(size / 2)
    above = kept > max(edge, 1e-7)
    variances = jnp.where(above, (kept + jnp.sqrt(jnp.maximum(kept**2 - edge**2, 0.0))) / 2, 0.0)
    rest = jnp.maximum((trace - jnp.sum(variances)) / max(size - directions, 1), 1e-6)
    return Basis(vectors[:, ::-1][:, :directions] * above, variances, rest)


def latent_space(means: jax.Array, counts: jax.Array, std: jax.Array, basis: Basis) -> Latent:
    """Partly whitened, so that neither the first directions nor the last, mostly noise, decide about everything."""
    spread = jnp.sqrt(basis.variances)
    radius = 1.3 * jnp.sqrt(jnp.maximum(jnp.sum(spread), 1e-12))  # of no direction at all: every vector is its mean
    unit = radius * jnp.where(spread > 0, jnp.sqrt(spread), 1.0)
    return Latent(_smooth(means, counts, basis, std), basis.directions, unit, spread / radius**2)


def _smooth(means: jax.Array, counts: jax.Array, basis: Basis, std: jax.Array) -> jax.Array:
    """Class means, shrunk to the mean of all by Wiener's filter for noise of ``std`` on their sums.

    A mean's distance from the mean of all is taken to vary in each direction as the examples do.
    """
    overall = counts @ means / jnp.sum(counts)
    shift = means - overall
    noise = jnp.square(std / counts)[:, None]
    inside = shift @ basis.directions
    outside = shift - inside @ basis.directions.T
    variances = jnp.where(basis.variances > 0, basis.variances, 1.0)
    inside = inside * variances / (variances + noise)
    return overall + inside @ basis.directions.T + outside * basis.rest / (basis.rest + noise)
