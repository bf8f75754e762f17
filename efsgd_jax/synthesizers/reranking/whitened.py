"""A private linear classifier on oriented gradients, in directions that generated images have shown.

    reranker directions   post-processing: oriented gradients of images that the mixture generates -> their mean, and
                          their principal directions, each divided by the root of its standard deviation
    reranker              logistic regression on the coordinates of real images in these directions

Most of the oriented gradients' 2,010 numbers (of 28x28 pixels) are noise to a classifier: in 150 directions there is
less of the noise of privacy, and whitening lets few steps learn from directions in which images differ little. A second
moment of real images would have to be released with noise that hides all but its first directions; that of generated
images costs nothing, since the mixture was released before.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import PlannedPhase
from efsgd_jax.privacy.access import Access
from efsgd_jax.synthesizers.base import Phase, Record, Released
from efsgd_jax.synthesizers.reranking.logistic import descent_phase
from efsgd_jax.synthesizers.reranking.options import RerankerOptions
from efsgd_jax.synthesizers.reranking.oriented_gradients import CONSTANT, features_of, num_features

# Name of the phase that computes the directions.
DIRECTIONS = "reranker directions"
# Number of generated images whose features are looked at: so many at a time, so many times.
AT_ONCE, TIMES = 500, 40

# draw(released, key, n) -> images [n, S, S, C] in [0, 1], of all classes in equal parts.
Draw = Callable[[Released, jax.Array, int], jax.Array]


class Directions(NamedTuple):
    """Released: the mean ``[F]`` of the features, and the map ``[F, d]`` from what is left to coordinates."""

    mean: jax.Array
    projection: jax.Array


def num_directions(spec: ImageSpec, options: RerankerOptions) -> int:
    """The number d of directions."""
    return min(options.reranker_directions, num_features(spec.shape))


def directions_phase(spec: ImageSpec, options: RerankerOptions, plan: PlannedPhase, draw: Draw) -> Phase:
    """One step without private data: it draws images, and computes the directions of their features."""
    size, d = num_features(spec.shape), num_directions(spec, options)

    def init(key: jax.Array, released: Released) -> tuple[Directions, Any]:
        return Directions(jnp.zeros(size), jnp.zeros((size, d))), released["moments"]

    def step(state: tuple[Directions, Any], access: Access, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        released = {"moments": state[1]}

        def add(sums: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            found = features_of(draw(released, key, AT_ONCE))
            return (sums[0] + jnp.sum(found, axis=0), sums[1] + found.T @ found), None

        zeros = jnp.zeros(size), jnp.zeros((size, size))
        (total, squares), _ = jax.lax.scan(add, zeros, jax.random.split(key, TIMES))
        mean, count = total / (AT_ONCE * TIMES), AT_ONCE * TIMES
        return (whitening(mean, squares / count - jnp.outer(mean, mean), d), state[1]), {}

    return Phase(plan, init, step, release=lambda state: state[0])


def whitening(mean: jax.Array, covariance: jax.Array, d: int) -> Directions:
    """Partly whitened principal directions: coordinates have a mean square norm of 1 together."""
    values, vectors = jnp.linalg.eigh(covariance)
    values, vectors = jnp.maximum(values[::-1][:d], 0.0), vectors[:, ::-1][:, :d]
    # Directions in which hardly any image differs are left out: only rounding errors are whitened there.
    return Directions(mean, partly_whitened(vectors, jnp.where(values > 1e-6 * values[0], values, 0.0)))


def partly_whitened(vectors: jax.Array, variances: jax.Array) -> jax.Array:
    """Directions ``[F, d]``, each divided by the root of its standard deviation, for a mean square norm of 1 together.

    Directions without variance become zero.
    """
    spread = jnp.sqrt(variances)
    radius = jnp.sqrt(jnp.maximum(jnp.sum(spread), 1e-12))
    kept = spread > 0
    return jnp.where(kept, vectors / (radius * jnp.sqrt(jnp.where(kept, spread, 1.0))), 0.0)


def coordinates(directions: Directions, features: jax.Array) -> jax.Array:
    """Coordinates ``[d + 1]`` of features ``[F]``, clipped to norm 1, with ``CONSTANT`` at their end."""
    z = (features - directions.mean) @ directions.projection
    return jnp.append(z / jnp.maximum(jnp.linalg.norm(z), 1.0), CONSTANT)


def reranker_phase(spec: ImageSpec, options: RerankerOptions, plan: PlannedPhase) -> Phase:
    """Logistic regression (``descent_phase``) in the directions; releases weights ``[F, K]`` of the features.

    Formal guarantees:
      Those of ``descent_phase``. Coordinates are a function of one image and of what was released before, and are
      clipped to norm 1.
    """

    def features(record: Record, released: Released) -> jax.Array:
        return coordinates(released[DIRECTIONS], features_of(record.image[None].astype(jnp.float32) / 255)[0])

    inner = descent_phase(spec.num_classes, num_directions(spec, options) + 1, features, options, plan)

    def init(key: jax.Array, released: Released) -> tuple[Any, Directions]:
        return inner.init(key, released), jax.tree.map(jnp.asarray, released[DIRECTIONS])

    def step(state: tuple[Any, Directions], access: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        new, metrics = inner.step(state[0], access, key)
        return (new, state[1]), metrics

    def release(state: tuple[Any, Directions]) -> jax.Array:
        return of_features(state[1], inner.release(state[0]))

    return inner._replace(init=init, step=step, release=release)


def of_features(directions: Directions, weights: jax.Array) -> jax.Array:
    """Weights ``[F, K]`` of the features that give the logits of weights ``[d + 1, K]`` of coordinates and constant.

    The last feature is a constant too, which takes up the mean.
    """
    slopes = jnp.asarray(directions.projection @ weights[:-1])  # as released, they are arrays of NumPy
    return slopes.at[-1].add(weights[-1] - directions.mean @ slopes / CONSTANT)
