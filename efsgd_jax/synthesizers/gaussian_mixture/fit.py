"""The mixture of labelled vectors from four noisy releases: means, a second moment, a few k-means steps, and moments.

    1. class sums and counts          -> class means m_y, smoothed in the basis that comes next
    2. second moment of x - m_y       -> principal components V, with eigenvalues above the noise's edge
    3. T times: sums and counts of the nearest centre's members, in V, partly whitened
    4. counts, sums, second moments about the centres -> weights, centres, covariances, shrunk towards the pooled one

Everything between the releases is post-processing. Each is a full-batch Gaussian release, and together they cost
what one with the given noise multiplier costs.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.one_shot import NoiseSupply, Release, share_noise
from efsgd_jax.privacy.rounding import sum_of_squares
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture

# Length of an example's count beside its vector, in units of the clip norm; and the weights of its count and of its
# second moment beside its difference from the centre.
COUNT_LENGTH = 0.25
MOMENT_COUNT_WEIGHT, MOMENT_SQUARE_WEIGHT = 0.3, 2.0
# Longest difference from a component's centre, in units in which all examples of a class lie within 1; what is further
# is pulled there, which makes a component too narrow.
MOMENT_CLIP_OF_ONE, MOMENT_CLIP_OF_SEVERAL = 1.0, 0.8


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How to spend what the mixture may cost.

    Attributes:
      components: M, of each class.
      directions: d, at most; those below the noise threshold are left out.
      mean_clip: l2 norm of an example beyond which it is scaled down in the class sums.
      deviation_clip: the same of an example's difference from its class mean, for the basis.
      cluster_steps: of k-means; none with one component.
      mean_share: of the budget 1/sigma^2 that pays for the class means; the others alike.
      basis_share: for the basis.
      cluster_share: for the steps of k-means.
      moment_share: for the components' moments.
    """

    components: int = 5
    directions: int = 60
    mean_clip: float = 10.0
    deviation_clip: float = 6.0
    cluster_steps: int = 4
    mean_share: float = 0.15
    basis_share: float = 0.25
    cluster_share: float = 0.2
    moment_share: float = 0.5


def fit_mixture(
    key: jax.Array, x: jax.Array, labels: jax.Array, num_classes: int, noise_multiplier: float, options: FitOptions
) -> Mixture:
    """Fits the mixture.

    Args:
      key: typed PRNG key, secret and used once.
      x: float32 ``[N, D]``.
      labels: int ``[N]``.
      num_classes: K.
      noise_multiplier: sigma of one release that costs what all of these cost; 0 for no noise.
      options: of what there is to choose.

    Formal guarantees:
      One ``GaussianDpEvent(noise_multiplier)``: see ``share_noise`` and each release below. Clip norms, shares and
      numbers of steps do not depend on the data, N is public.
    """
    o = options
    shares = [o.mean_share, o.basis_share, o.moment_share] + ([o.cluster_share] if o.components > 1 else [])
    whole = math.fsum(shares)
    sigma_mean, sigma_basis, sigma_moment, *sigma_cluster = share_noise(noise_multiplier, [s / whole for s in shares])
    noise_key, start_key = jax.random.split(key)
    size, d = x.shape[1], min(o.directions, x.shape[1])
    steps = o.cluster_steps if o.components > 1 else 0
    groups = num_classes * o.components
    coordinates = num_classes * (size + 1) + size**2 + steps * groups * (d + 1) + groups * (d + 1 + d**2)
    noise = NoiseSupply(noise_key, coordinates if noise_multiplier > 0 else 0)

    raw_means, counts, std = _class_means(noise, x, labels, num_classes, o.mean_clip, sigma_mean)
    basis = _principal_basis(noise, x - raw_means[labels], o, sigma_basis)
    means = _smooth(raw_means, counts, basis, std)

    # Partly whitened, so that neither the first directions nor the last, mostly noise, decide about everything.
    spread = jnp.sqrt(basis.variances)
    radius = 1.3 * jnp.sqrt(jnp.maximum(jnp.sum(spread), 1e-12))  # of no direction at all: every vector is its mean
    unit = radius * jnp.where(spread > 0, jnp.sqrt(spread), 1.0)
    z = clip_rows((x - means[labels]) @ basis.directions / unit, 1.0)
    spread = spread / radius**2  # the variances of z, where there is a direction

    start = jax.random.normal(start_key, (num_classes, o.components, z.shape[1]))
    centres = 0.7 * jnp.sqrt(spread) * start if o.components > 1 else jnp.zeros_like(start)
    if o.components > 1:
        for _ in range(steps):
            sigma = sigma_cluster[0] * math.sqrt(steps)
            centres = _cluster_step(noise, z, labels, centres, sigma) * (spread > 0)
    clip = MOMENT_CLIP_OF_ONE if o.components == 1 else MOMENT_CLIP_OF_SEVERAL
    weights, centres, covariances = _moments(noise, z, labels, centres, spread > 0, clip, sigma_moment)

    values, axes = jnp.linalg.eigh(unit[:, None] * covariances * unit)
    return Mixture(
        means=means,
        basis=basis.directions,
        weights=weights,
        centres=unit * centres,
        axes=axes,
        variances=jnp.maximum(values, 0.0),
    )


def clip_rows(rows: jax.Array, l2_norm_clip: float) -> jax.Array:
    """Each row ``[N, D]`` shortened to norm C at most, up to rounding; a row that is not finite becomes zero."""
    norms = jnp.sqrt(sum_of_squares(rows))[:, None]
    shorter = rows * (l2_norm_clip / jnp.maximum(norms, l2_norm_clip))
    return jnp.where(jnp.isfinite(norms), shorter, 0.0)


def _sums_and_counts(
    release: Release, rows: jax.Array, l2_norm_clip: float, weight: float, groups: jax.Array, num_groups: int
) -> tuple[jax.Array, jax.Array]:
    """Sums ``[G, D]`` of clipped rows and weighted counts ``[G, 1]``: a row adds a vector of length
    ``sqrt(C^2 + weight^2)`` to its group's."""
    whole = release.rows(rows, l2_norm_clip)
    count = release.constant(weight, len(rows), whole)
    both = whole._replace(values=jnp.concatenate([whole.values, count.values], axis=1), bits=count.bits)
    sums = release.sums(both, groups, num_groups)
    return sums[:, :-1], sums[:, -1:]


def _class_means(
    noise: NoiseSupply, x: jax.Array, labels: jax.Array, num_classes: int, l2_norm_clip: float, sigma: float
) -> tuple[jax.Array, jax.Array, float]:
    """Means ``[K, D]``, counts ``[K]``, and the std of the noise on sums.

    Formal guarantees:
      An example moves the row of its class only, by a vector of norm C at most and a count of length C / 4: one
      ``GaussianDpEvent(sigma)`` with sensitivity ``C sqrt(1 + 1/16)``, of exact sums (``one_shot.Release``).
    """
    weight = COUNT_LENGTH * l2_norm_clip
    release = Release(noise, math.hypot(l2_norm_clip, weight), sigma)
    sums, counts = _sums_and_counts(release, x, l2_norm_clip, weight, labels, num_classes)
    counts = jnp.maximum(counts[:, 0] / weight, 1.0)
    return sums / counts[:, None], counts, release.std


class _Basis(NamedTuple):
    """``directions`` ``[D, d]`` with zeros for those that are not there, their ``variances``, and the ``rest``'s."""

    directions: jax.Array
    variances: jax.Array
    rest: jax.Array


def _principal_basis(noise: NoiseSupply, deviations: jax.Array, options: FitOptions, sigma: float) -> _Basis:
    """Principal components of the deviations from class means.

    Formal guarantees:
      An example moves the second moment by ``x x^T``, whose norm is ``|x|^2``, at most the clip norm's square: one
      ``GaussianDpEvent(sigma)``, of exact sums. The number of examples is public.
    """
    n, size = deviations.shape
    clip = options.deviation_clip
    release = Release(noise, clip**2, sigma)
    (square,) = release.squares(release.factors(deviations, clip), jnp.zeros(n, jnp.int32), 1)
    values, vectors = jnp.linalg.eigh(square / n)
    directions = min(options.directions, size)
    kept, trace = values[::-1][:directions], jnp.sum(values)
    # The noise alone has eigenvalues up to this edge, and pushes those above it up (Benaych-Georges, Nadakuditi, 2011).
    edge = 2 * clip**2 * sigma * math.sqrt(size / 2) / n
    above = kept > max(edge, 1e-7)
    variances = jnp.where(above, (kept + jnp.sqrt(jnp.maximum(kept**2 - edge**2, 0.0))) / 2, 0.0)
    rest = jnp.maximum((trace - jnp.sum(variances)) / max(size - directions, 1), 1e-6)
    return _Basis(vectors[:, ::-1][:, :directions] * above, variances, rest)


def _smooth(means: jax.Array, counts: jax.Array, basis: _Basis, std: float) -> jax.Array:
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


def _nearest(z: jax.Array, labels: jax.Array, centres: jax.Array) -> jax.Array:
    """Index ``[N]`` of each example's nearest centre among all ``K M``: of its own class."""
    k, m, d = centres.shape
    flat = centres.reshape(k * m, d)
    distance = jnp.sum(jnp.square(flat), axis=1) - 2 * z @ flat.T
    own = jnp.arange(k * m) // m == labels[:, None]
    return jnp.argmin(jnp.where(own, distance, jnp.inf), axis=1)


def _cluster_step(noise: NoiseSupply, z: jax.Array, labels: jax.Array, centres: jax.Array, sigma: float) -> jax.Array:
    """One step of Lloyd's algorithm.

    Formal guarantees:
      An example moves one centre's count by 1 and its sum by a vector of norm 1 at most: one ``GaussianDpEvent(sigma)``
      with sensitivity sqrt(2).
    """
    k, m, d = centres.shape
    release = Release(noise, math.sqrt(2.0), sigma)
    sums, counts = _sums_and_counts(release, z, 1.0, 1.0, _nearest(z, labels, centres), k * m)
    counts = jnp.maximum(counts, 3 * release.std + 1)  # a centre without members is drawn to the class mean
    return (sums / counts).reshape(k, m, d)


def _moments(
    noise: NoiseSupply, z: jax.Array, labels: jax.Array, centres: jax.Array, there: jax.Array, clip: float, sigma: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weights ``[K, M]``, centres ``[K, M, d]`` and covariances ``[K, M, d, d]`` of the components.

    Formal guarantees:
      An example moves one component's count, sum and second moment, with r its difference from the centre, by a, r and
      b r r^T, where |r| is at most C = ``clip``: one ``GaussianDpEvent(sigma)`` with sensitivity
      ``sqrt(a^2 + C^2 + b^2 C^4)``.
    """
    k, m, d = centres.shape
    a, b = MOMENT_COUNT_WEIGHT, MOMENT_SQUARE_WEIGHT
    sensitivity = math.sqrt(a**2 + clip**2 + (b * clip**2) ** 2)
    nearest = _nearest(z, labels, centres)
    r = z - centres.reshape(k * m, d)[nearest]
    release = Release(noise, sensitivity, sigma)
    sums, counts = _sums_and_counts(release, r, clip, a, nearest, k * m)
    squares = release.squares(release.factors(r, clip, b), nearest, k * m, b) / b

    std = release.std
    counts = jnp.maximum(counts[:, 0] / a, 2 * std / a + 1)
    both = there[:, None] & there
    squares, sums = jnp.where(both, squares, 0.0), jnp.where(there, sums, 0.0)

    pooled = jnp.sum(squares, axis=0) / jnp.sum(counts)
    shift = sums / counts[:, None]
    own = squares / counts[:, None, None] - shift[:, :, None] * shift[:, None, :]
    shrinkage = counts / (counts + 6 * std / b * jnp.sqrt(jnp.sum(there)))
    covariances = shrinkage[:, None, None] * own + (1 - shrinkage)[:, None, None] * pooled
    counts = counts.reshape(k, m)
    return (
        counts / jnp.sum(counts, axis=1, keepdims=True),
        centres + shift.reshape(k, m, d),
        covariances.reshape(k, m, d, d),
    )
