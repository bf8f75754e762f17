"""A private classifier on random features: ridge regression in closed form (after arXiv 2412.04785).

With W of public random frequencies and x an image's input of norm 1, the features

    z(x) = (cos W x, sin W x) / sqrt(m)

have norm 1, whatever the image. One release has both sums that ridge regression needs, and the rest is post-processing:

    G = sum_i z_i z_i^T + noise        B = sum_i z_i y_i^T + noise        (G + lambda I) C = B

for one-hot labels y. The paper releases an interpolating solution with noise, whose sensitivity depends on how close to
one another the private features are; two near-equal images with different labels make it unbounded. Here the
sensitivity is a constant, for any number of features and any lambda.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import OuterSum, PlannedPhase, SquareSum
from efsgd_jax.privacy.row_sums import FACTOR_BITS
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.privacy.sum_terms import whole_factor
from efsgd_jax.synthesizers.base import Phase, Record, Released
from efsgd_jax.synthesizers.reranking.options import RerankerOptions
from efsgd_jax.synthesizers.reranking.oriented_gradients import features_of as gradients_of

# Key of the frequencies: public and the same in all runs.
PUBLIC_KEY = 24_120_478
# lambda relative to the largest singular value that noise alone would have, and, for little noise, to N.
RIDGE, SMALLEST_RIDGE = 1.2, 5e-5
# Factor of the scores, which are near 1 for the class and near 0 for others, in the log-probabilities.
SHARPNESS = 10.0


class Example(NamedTuple):
    """The view of a record: its features, in integer units of ``2^-FACTOR_BITS``, and its label."""

    features: jax.Array
    label: jax.Array


def features_of(images: jax.Array, options: RerankerOptions) -> jax.Array:
    """Random features of float images ``[N, S, S, C]`` in [0, 1]: ``[N, 2 m]``, of norm 1."""
    inputs = gradients_of(images)[:, :-1] if options.random_input == "oriented_gradients" else _flat(images)
    inputs = inputs / jnp.maximum(jnp.linalg.norm(inputs, axis=1, keepdims=True), 1e-6)
    shape = inputs.shape[1], options.random_frequencies
    angles = inputs @ (options.random_scale * jax.random.normal(jax.random.key(PUBLIC_KEY), shape))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1) / math.sqrt(options.random_frequencies)


def _flat(images: jax.Array) -> jax.Array:
    return images.reshape(len(images), -1)


def log_probabilities(weights: jax.Array, features: jax.Array) -> jax.Array:
    """Log-probabilities of the classes, ``[N, K]``, for weights ``[2 m, K]`` and features ``[N, 2 m]``."""
    return jax.nn.log_softmax(SHARPNESS * features @ weights)


def ridge_of(std: float, size: int, dataset_size: int) -> float:
    """lambda, for noise of standard deviation ``std`` on the diagonal of a ``[size, size]`` matrix: public.

    Symmetric noise, with variance ``std^2 / 2`` off the diagonal, has a largest singular value of ``std sqrt(2 size)``.
    """
    return max(RIDGE * std * math.sqrt(2 * size), SMALLEST_RIDGE * dataset_size)


def reranker_phase(spec: ImageSpec, options: RerankerOptions, plan: PlannedPhase) -> Phase:
    """One release, and the solution of the ridge regression; releases weights ``[2 m, K]``.

    Formal guarantees:
      Features are a function of one record and of public numbers, and are clipped to norm 1 in integers. The step is
      one ``access.release`` of both sums, to which one record adds a matrix of norm at most 1 each. N is public.
    """
    unit, size = 1.0 / 2**FACTOR_BITS, 2 * options.random_frequencies

    def view(record: Record, released: Released) -> Example:
        features = features_of(record.image[None].astype(jnp.float32) / 255, options)[0]
        return Example(whole_factor(features, 1.0), record.label)

    def init(key: jax.Array, released: Released) -> jax.Array:
        return jnp.zeros((size, spec.num_classes))

    def step(state: jax.Array, access: SumAccess, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        squares = SquareSum(lambda r: unit * r.features, 1.0)
        targets = OuterSum(lambda r: r.features, lambda r: jax.nn.one_hot(r.label, spec.num_classes), 1.0, 1.0)
        (gram, of_class), std = access.release([squares, targets])
        ridge = ridge_of(std, size, access.dataset_size)
        weights = jnp.linalg.solve(gram[0] + ridge * jnp.eye(size), of_class)
        access.private_mean("accuracy", lambda r: jnp.argmax(r.features @ weights) == r.label)
        return weights, {}

    return Phase(plan, init, step, release=lambda state: state, view=view, shown=("accuracy",))
