"""A private classifier that learns its features from all images and its classes from few labels.

    feature mean         noisy mean of the oriented gradients of all images
    feature directions   noisy second moment about the mean          -> principal directions, partly whitened
    classifier           logistic regression on codes in these directions; an image without a label adds zero

Images without labels make the classifier better in the first two phases: the fewer directions there are, the less noise
the few labels meet. What the classifier says of an image is a function of that image and of what was released, so that
labelling images by it costs nothing more.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import PlannedPhase, SquareSum, VectorSum
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.privacy.sum_terms import whole_factor
from efsgd_jax.synthesizers.base import Phase, Record, Released
from efsgd_jax.synthesizers.gaussian_mixture.space import Basis, principal_basis
from efsgd_jax.synthesizers.pate_triple_gan.options import ClassifierOptions
from efsgd_jax.synthesizers.reranking.logistic import (
    SHARPNESS,
    Descent,
    DescentOptions,
    Example,
    descend,
    start_of_descent,
)
from efsgd_jax.synthesizers.reranking.oriented_gradients import LONGEST, features_of, num_features
from efsgd_jax.synthesizers.reranking.whitened import Directions, coordinates, partly_whitened

# Clip norm of the difference between the features of an image and their mean: about the median of Fashion-MNIST's.
DEVIATION_CLIP = 0.85
# Clip norm of an example's gradient, whose code has a norm of at most ``LONGEST``.
GRADIENT_CLIP = 1.0
# Few labels: more than that of the reranker.
WEIGHT_DECAY = 4e-3
# Multipliers of the hash that says whether an image's label is read: public, and the same in all runs.
PUBLIC_KEY = 24_041_273


class Classifier(NamedTuple):
    """A linear classifier of codes; all of it is released.

    Attributes:
      mean: mean of the features, ``[F]``.
      projection: from features to codes, ``[F, d]``.
      weights: from codes, with a constant at the end, to logits: ``[d + 1, K]``.
    """

    mean: jax.Array
    projection: jax.Array
    weights: jax.Array


def has_label(image: jax.Array, labelled: float) -> jax.Array:
    """Whether the label of an image uint8 ``[S, S, C]`` is read: a bool, by a hash of the image's pixels."""
    shape = (image.size,)
    factors = jax.random.bits(jax.random.key(PUBLIC_KEY), shape, jnp.uint32) | 1
    mixed = jnp.sum(image.reshape(-1).astype(jnp.uint32) * factors, dtype=jnp.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):  # the finaliser of MurmurHash3
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(factor)
    return mixed <= jnp.uint32(round(labelled * (2**32 - 1)))


def logits(classifier: Classifier, features: jax.Array) -> jax.Array:
    """Logits ``[N, K]`` for features ``[N, F]``."""
    codes = jax.vmap(lambda f: _code(classifier.mean, classifier.projection, f))(features)
    return SHARPNESS * codes @ classifier.weights


def label_of(record: Record, released: Released, options: ClassifierOptions) -> jax.Array:
    """The record's label if it is read; otherwise the one that the released classifier gives its image: int32."""
    features = features_of(record.image[None].astype(jnp.float32) / 255)
    given = jnp.argmax(logits(released["classifier"], features)[0])
    return jnp.where(has_label(record.image, options.labelled), record.label, given).astype(jnp.int32)


def empty_classifier(spec: ImageSpec, options: ClassifierOptions) -> Classifier:
    """A classifier of zeros, with the shapes of a trained one."""
    size = num_features(spec.shape)
    d = min(options.feature_directions, size)
    return Classifier(jnp.zeros(size), jnp.zeros((size, d)), jnp.zeros((d + 1, spec.num_classes)))


def classifier_phases(spec: ImageSpec, options: ClassifierOptions, plan: Mapping[str, PlannedPhase]) -> list[Phase]:
    """The phases that release a ``Classifier``.

    Formal guarantees:
      Each step is one ``access.release``. Features and hash are functions of one image, codes of an image and of what
      was released before. An image whose label is not read adds a zero to the descent, whatever its label is. N and
      the part of labelled images are public numbers.
    """
    size = num_features(spec.shape)
    empty = empty_classifier(spec, options)
    settings = DescentOptions(
        options.classifier_steps, options.classifier_learning_rate, GRADIENT_CLIP, WEIGHT_DECAY, options.labelled
    )

    def features(record: Record, released: Released) -> jax.Array:
        return features_of(record.image[None].astype(jnp.float32) / 255)[0]

    def mean_step(_: jax.Array, access: SumAccess, key: jax.Array) -> tuple[jax.Array, dict]:
        (total,), _std = access.release([VectorSum(lambda r: r, LONGEST)])
        return total[0] / access.dataset_size, {}

    def directions_step(_: Basis, access: SumAccess, key: jax.Array) -> tuple[Basis, dict]:
        mean, n = access.released["feature mean"], access.dataset_size
        (found,), std = access.release([SquareSum(lambda r: r - mean, DEVIATION_CLIP)])
        return principal_basis(found[0] / n, options.feature_directions, std / n), {}

    def example(record: Record, released: Released) -> Example:
        mean, projection = released["feature mean"], _projection(released["feature directions"])
        code = _code(mean, projection, features(record, released))
        return Example(whole_factor(code, LONGEST), record.label, has_label(record.image, options.labelled))

    def start(key: jax.Array, released: Released) -> tuple[Classifier, Descent]:
        known = empty._replace(
            mean=jnp.asarray(released["feature mean"]), projection=_projection(released["feature directions"])
        )
        return known, start_of_descent(*empty.weights.shape)

    def step(
        state: tuple[Classifier, Descent], access: SumAccess, key: jax.Array
    ) -> tuple[tuple[Classifier, Descent], dict]:
        known, descent = state
        return (known, descend(descent, access, settings)), {}

    return [
        Phase(
            plan["feature mean"], lambda key, released: jnp.zeros(size), mean_step, release=lambda s: s, view=features
        ),
        Phase(
            plan["feature directions"],
            lambda key, released: Basis(jnp.zeros_like(empty.projection), jnp.zeros(len(empty.weights) - 1), 0.0),  # type: ignore[arg-type]
            directions_step,
            release=lambda s: s,
            view=features,
        ),
        Phase(
            plan["classifier"],
            start,
            step,
            release=lambda s: s[0]._replace(weights=s[1].average),
            view=example,
            shown=("accuracy",),
            loops_on_cpu=True,
        ),
    ]


def _projection(basis: Basis) -> jax.Array:
    return partly_whitened(basis.directions, basis.variances)


def _code(mean: jax.Array, projection: jax.Array, features: jax.Array) -> jax.Array:
    return coordinates(Directions(mean, projection), features)
