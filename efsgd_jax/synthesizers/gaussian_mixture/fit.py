"""The phases that fit the mixture to labelled vectors. Each phase consists of full-batch Gaussian releases.

    class means   sums and counts of each class  -> class means m_y; they are smoothed once the basis is known
    basis         second moment of x - m_y       -> principal components V whose eigenvalues stand out from the noise
    centres       T steps of k-means in partly whitened coordinates of V: sums and counts of each centre's members
    moments       counts, sums and second moments about the centres -> weights, centres and covariances; these are
                  shrunk towards those of the classes (covariances)

Everything between the releases is post-processing. With one component for each class there is no phase ``centres``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import PlannedPhase, SquareSum, VectorSum
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.privacy.sum_terms import Term
from efsgd_jax.synthesizers import public_autoencoder
from efsgd_jax.synthesizers.base import Phase, Record, Released
from efsgd_jax.synthesizers.gaussian_mixture.appearance import to_vector, vector_size
from efsgd_jax.synthesizers.gaussian_mixture.covariances import positive, shrunk
from efsgd_jax.synthesizers.gaussian_mixture.mixture import Mixture
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters, clip_norms
from efsgd_jax.synthesizers.gaussian_mixture.space import Basis, Latent, latent_space, principal_basis

# Class means: what an example adds to its class's count, relative to the clip norm of its vector. The larger it is, the
# less noise the counts have, and the more the sums.
COUNT_LENGTH = 0.25
# Moments: weights of an example's count and of its second moment, relative to its difference from the centre. The
# larger a weight, the less noise its sum has, and the more the other sums of the same release.
MOMENT_COUNT_WEIGHT, MOMENT_SQUARE_WEIGHT = 0.3, 2.0
# Moments: clip norm of an example's difference from its centre, in latent space, where every code has norm at most 1.
# With one component for each class, and with several. Clipping makes the components narrower than the data.
MOMENT_CLIP_OF_ONE, MOMENT_CLIP_OF_SEVERAL = 1.0, 0.8


class Vector(NamedTuple):
    """The view of a record that the phases read: its vector ``[D]`` and its label."""

    x: jax.Array
    label: jax.Array


class ClassMeans(NamedTuple):
    """Released: noisy class means ``[K, D]`` before smoothing, counts ``[K]``, and the std of the noise on the sums."""

    means: jax.Array
    counts: jax.Array
    std: jax.Array


def fit_phases(spec: ImageSpec, hp: Hyperparameters, plan: Mapping[str, PlannedPhase]) -> list[Phase]:
    """The phases that fit the mixture, in order.

    Args:
      spec: shape of the images and number of classes.
      hp: hyperparameters of the method.
      plan: the planned phases by name; ``options.budget_shares`` has the names.

    Formal guarantees:
      Each step is one ``access.release``, which clips every statistic and adds noise for all of them together. A
      statistic is a function of one record and of what earlier phases released; clip norms, shares and numbers of steps
      do not depend on the data, N is public.
    """
    classes, size = spec.num_classes, vector_size(spec, hp)
    d, m = min(hp.directions, size), hp.components
    mean_clip, deviation_clip = clip_norms(spec, hp)

    def view(record: Record, released: Released) -> Vector:
        return Vector(to_vector(record.image, hp, released.get(public_autoencoder.NAME)), record.label)

    # A phase's state is the number of steps taken, its key, and what the phase releases.
    def phase(name: str, init: Callable[[Released], Any], step: Callable[[Any, SumAccess, Released], Any]) -> Phase:
        return Phase(
            plan[name],
            lambda key, released: (jnp.zeros((), jnp.int32), key, init(released)),
            lambda state, access, key: ((state[0] + 1, state[1], step(state[2], access, access.released)), {}),
            release=lambda state: state[2],
            view=view,
        )

    def class_means(_: ClassMeans, access: SumAccess, released: Released) -> ClassMeans:
        vectors = VectorSum(lambda r: r.x, mean_clip, COUNT_LENGTH * mean_clip)
        (found,), std = access.release([vectors], group=lambda r: r.label, num_groups=classes)
        sums, counts = found
        counts = jnp.maximum(counts, 1.0)
        return ClassMeans(sums / counts[:, None], counts, jnp.float32(std))

    def basis(_: Basis, access: SumAccess, released: Released) -> Basis:
        means = released["class means"].means
        square = SquareSum(lambda r: r.x - means[r.label], deviation_clip)
        (found,), std = access.release([square])
        n = access.dataset_size
        return principal_basis(found[0] / n, hp.directions, std / n)

    def start(released: Released) -> jax.Array:
        return jnp.zeros((classes, m, d))

    def latent(released: Released) -> Latent:
        means: ClassMeans = released["class means"]
        return latent_space(means.means, means.counts, means.std, released["basis"])

    def centres_step(centres: jax.Array, access: SumAccess, released: Released) -> jax.Array:
        """One noisy step of Lloyd's algorithm.

        A centre with few members is shrunk towards the class mean, because its sum is divided by at least 3 std + 1,
        where std is the standard deviation of the noise on its count.
        """
        space = latent(released)
        members = VectorSum(space.code, 1.0, 1.0)
        (found,), std = access.release(
            [members], group=lambda r: _nearest(space.code(r), r.label, centres), num_groups=classes * m
        )
        sums, counts = found
        return (sums / jnp.maximum(counts, 3 * std + 1)[:, None]).reshape(centres.shape) * (space.spread > 0)

    def first_centres(key: jax.Array, released: Released) -> Any:
        start_key, key = jax.random.split(key)
        normal = jax.random.normal(start_key, (classes, m, d))
        # Random centres, drawn with 0.7 of the standard deviation of the codes along each direction.
        return jnp.zeros((), jnp.int32), key, 0.7 * jnp.sqrt(latent(released).spread) * normal

    def moments(_: Mixture, access: SumAccess, released: Released) -> Mixture:
        space = latent(released)
        centres = released["centres"] if m > 1 else start(released)
        flat = centres.reshape(classes * m, d)
        clip = MOMENT_CLIP_OF_ONE if m == 1 else MOMENT_CLIP_OF_SEVERAL

        def nearest(r: Vector) -> jax.Array:
            return _nearest(space.code(r), r.label, centres)

        def difference(r: Vector) -> jax.Array:
            return space.code(r) - flat[nearest(r)]

        terms: list[Term] = [
            VectorSum(difference, clip, MOMENT_COUNT_WEIGHT),
            SquareSum(difference, clip, MOMENT_SQUARE_WEIGHT),
        ]
        ((sums, counts), squares), std = access.release(terms, group=nearest, num_groups=classes * m)
        weights, middle, covariances = _components(counts, sums, squares, std, space.spread > 0, centres)
        values, axes = jnp.linalg.eigh(space.unit[:, None] * covariances * space.unit)
        return Mixture(
            means=space.means,
            basis=space.basis,
            weights=weights,
            centres=space.unit * middle,
            axes=axes,
            variances=jnp.maximum(values, 0.0),
        )

    zeros = jnp.zeros
    found = [
        phase("class means", lambda _: ClassMeans(zeros((classes, size)), zeros(classes), zeros(())), class_means),
        phase("basis", lambda _: Basis(zeros((size, d)), zeros(d), zeros(())), basis),
    ]
    if m > 1:
        found.append(phase("centres", start, centres_step)._replace(init=first_centres))
    return [*found, phase("moments", lambda _: empty_mixture(spec, hp), moments)]


def empty_mixture(spec: ImageSpec, hp: Hyperparameters) -> Mixture:
    """A mixture of zeros, with the shapes of a fitted one."""
    k, m, size = spec.num_classes, hp.components, vector_size(spec, hp)
    d = min(hp.directions, size)
    return Mixture(
        means=jnp.zeros((k, size)),
        basis=jnp.zeros((size, d)),
        weights=jnp.zeros((k, m)),
        centres=jnp.zeros((k, m, d)),
        axes=jnp.zeros((k, m, d, d)),
        variances=jnp.zeros((k, m, d)),
    )


def _nearest(z: jax.Array, label: jax.Array, centres: jax.Array) -> jax.Array:
    """Index of the nearest centre of the record's class, among all ``K M``.

    Distances to the centres of all classes are computed, which for many records is one matrix product, whereas the
    centres of each record's class alone would have to be gathered for every record.
    """
    k, m, d = centres.shape
    flat = centres.reshape(k * m, d)
    distances = jnp.sum(jnp.square(flat), axis=1) - 2 * flat @ z
    return jnp.argmin(jnp.where(jnp.arange(k * m) // m == label, distances, jnp.inf))


def _components(
    counts: jax.Array, sums: jax.Array, squares: jax.Array, std: float, there: jax.Array, centres: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weights ``[K, M]``, centres ``[K, M, d]`` and covariances ``[K, M, d, d]`` from noisy moments about ``centres``.

    ``std`` is the standard deviation of the noise on the sums; on counts and squares it is ``std`` divided by their
    weights. ``there`` bool ``[d]`` marks the directions that the basis has; the others are set to zero.
    """
    k, m, d = centres.shape
    # At least two standard deviations of their noise, so that nothing is divided by a count that is mostly noise.
    counts = jnp.maximum(counts, 2 * std / MOMENT_COUNT_WEIGHT + 1)
    squares, sums = jnp.where(there[:, None] & there, squares, 0.0), jnp.where(there, sums, 0.0)
    shift = sums / counts[:, None]
    own = squares / counts[:, None, None] - shift[:, :, None] * shift[:, None, :]
    noise = std / MOMENT_SQUARE_WEIGHT
    # Components are shrunk towards their class, and classes towards all records.
    each, counts = own.reshape(k, m, d, d), counts.reshape(k, m)
    records = jnp.sum(counts, axis=1)
    classes = jnp.einsum("km,kmij->kij", counts, each) / records[:, None, None]
    everything = jnp.einsum("k,kij->ij", records, classes) / jnp.sum(records)
    classes = shrunk(classes, m**0.5 * noise / records, jnp.broadcast_to(everything, classes.shape))
    if m > 1:
        own = shrunk(own, noise / counts.reshape(k * m), jnp.repeat(classes, m, axis=0))
    covariances = positive(own if m > 1 else classes)
    # The mean of a component with hardly any record is mostly noise: a Wiener filter moves it to that of its class.
    variances = jnp.maximum(jnp.diagonal(classes, axis1=1, axis2=2), 1e-12)[:, None]
    reliable = variances / (variances + jnp.square(std / counts)[..., None])
    return (
        counts / jnp.sum(counts, axis=1, keepdims=True),
        reliable * (centres + shift.reshape(k, m, d)),
        covariances.reshape(k, m, d, d),
    )
