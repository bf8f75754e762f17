"""A private linear classifier on oriented gradients, which scores how well a generated image shows its class.

Oriented gradients (Dalal, Triggs, 2005) are a fixed function of the image, so that only the linear layer spends privacy
budget. A linear layer on features of norm 1 needs few steps of full-batch gradient descent.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import OuterSum, PlannedPhase
from efsgd_jax.privacy.one_shot import FACTOR_BITS
from efsgd_jax.privacy.sum_access import SumAccess, whole_factor
from efsgd_jax.synthesizers.base import Phase, Record, Released
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters

# Number of directions of gradients that are told apart.
ORIENTATIONS = 8
# Intended number of cells (squares of pixels) along a side of the image, on a coarse and on a fine scale. A cell's size
# is a whole number of pixels, at least 2, so that there may be more or fewer; where both have the same size, there is
# one scale.
CELLS = (7, 14)
# Norm of the features of each scale, relative to those of the coarse one.
SCALES = (1.0, 0.7)
# Weight of the means of the channels relative to the gradients' features.
MEAN_WEIGHT = 0.5
# Constant feature (for the bias) that is appended to the other features, whose norm is at most 1.
CONSTANT = 0.3
# Bound of the norm of all features together, with a margin for rounding.
LONGEST = 1.0001 * math.hypot(1.0, CONSTANT)
# Added to the mean strength of the gradients around a cell before dividing by it, so that features are small where
# there is hardly any gradient.
FAINT = 0.02
# Factor of the logits, which are SHARPNESS * features @ weights. Features have a norm of about 1; without the factor,
# logits for weights of norm 1 would be small.
SHARPNESS = 10.0
# Momentum of the gradient descent.
MOMENTUM = 0.9
# Added to the gradient, times the weights. Without it, weights grow in all directions of the noise, and the classifier
# is surer than it is right.
WEIGHT_DECAY = 4e-4


def features_of(images: jax.Array) -> jax.Array:
    """What the classifier reads of float images ``[N, S, S, C]`` in [0, 1]: ``[N, F]``, of norm at most ``LONGEST``.

    The oriented gradients of each scale, centred, with norms in the ratios ``SCALES`` and 1 together; and ``CONSTANT``.
    """
    sides = dict.fromkeys(max(2, images.shape[1] // cells) for cells in CELLS)
    norms = [scale / math.hypot(*SCALES[: len(sides)]) for scale in SCALES]
    scaled = [
        norm * _unit(oriented_gradients(images, side, means=i == 0))
        for i, (side, norm) in enumerate(zip(sides, norms, strict=False))
    ]
    return jnp.concatenate([*scaled, jnp.full((len(images), 1), CONSTANT)], axis=1)


def num_features(shape: tuple[int, int, int]) -> int:
    """The number F of features of an image of shape ``[S, S, C]``."""
    return jax.eval_shape(features_of, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1]


def oriented_gradients(images: jax.Array, cell: int, *, means: bool) -> jax.Array:
    """Oriented gradients of float images ``[N, S, S, C]`` in [0, 1], in cells of ``cell`` pixels a side: ``[N, F]``.

    For each cell of the image, they are the strength of the gradient in eight directions, relative to the cells around
    it (square root of the ratio), and with ``means`` the mean of each channel times ``MEAN_WEIGHT``. Those of a black
    image are zeros.
    """
    grey = jnp.mean(images, axis=-1)
    right = jnp.pad(grey[:, :, 2:] - grey[:, :, :-2], ((0, 0), (0, 0), (1, 1)))
    down = jnp.pad(grey[:, 2:] - grey[:, :-2], ((0, 0), (1, 1), (0, 0)))
    angles = jnp.arange(ORIENTATIONS) * (2 * math.pi / ORIENTATIONS)
    along = jax.nn.relu(right[..., None] * jnp.cos(angles) + down[..., None] * jnp.sin(angles))
    # The strength of the gradient times the cubed cosine of its angle to each direction. Neighbouring directions are 45
    # degrees apart; the cubed cosine is one half at 37 degrees.
    tuned = along**3 / (jnp.square(right) + jnp.square(down) + 1e-8)[..., None]
    # Windows extend a pixel beyond the cell on each side, so that a small shift changes the features less.
    strength = _mean_over(tuned, cell + 2, cell)
    around = _mean_over(jnp.sum(strength, axis=-1, keepdims=True), 3, 1)
    found = jnp.sqrt(strength / (around + FAINT)).reshape(len(images), -1)
    if not means:
        return found
    return jnp.concatenate([found, MEAN_WEIGHT * _mean_over(images, cell, cell).reshape(len(images), -1)], axis=1)


def _unit(features: jax.Array) -> jax.Array:
    """Rows of ``[N, F]`` centred and scaled to norm 1; rows of equal numbers become zeros."""
    features = features - jnp.mean(features, axis=1, keepdims=True)
    return features / jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), 1e-6)


def _mean_over(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Means of ``[N, S, S, C]`` over square windows, ``stride`` pixels apart; pixels beyond the border count as 0."""
    dims, strides = (1, window, window, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, dims, strides, "SAME") / window**2


def log_probabilities(weights: jax.Array, features: jax.Array) -> jax.Array:
    """Log-probabilities of the classes, ``[N, K]``, for weights ``[F, K]`` and features ``[N, F]``."""
    return jax.nn.log_softmax(SHARPNESS * features @ weights)


class Example(NamedTuple):
    """The view of a record that the steps read: its features, in integer units of ``LONGEST / 2^FACTOR_BITS``
    (``sum_access.whole_factor``), and its label."""

    features: jax.Array
    label: jax.Array


class Descent(NamedTuple):
    """The optimiser's state: step, weights ``[F, K]``, their momentum, and the mean of the second half of iterates."""

    step: jax.Array
    weights: jax.Array
    momentum: jax.Array
    average: jax.Array


def reranker_phase(spec: ImageSpec, hp: Hyperparameters, plan: PlannedPhase) -> Phase:
    """Multinomial logistic regression by noisy full-batch gradient descent; releases weights ``[F, K]``.

    With features phi, predicted probabilities p and the one-hot label y, an example's gradient (divided by
    ``SHARPNESS``) is ``phi (p - y)^T``. Its norm is at most C = ``hp.reranker_clip``, because ``p - y`` is clipped to
    ``C / LONGEST``. The learning rate applies to gradients divided by C, with weight decay, and decays linearly to a
    tenth. The weights of the second half of the steps are averaged.

    Formal guarantees:
      Each step is one ``access.release`` of the sum of all examples' clipped gradients. N is public.
    """
    clip, unit, steps = hp.reranker_clip, LONGEST / 2**FACTOR_BITS, plan.steps

    def view(record: Record, released: Released) -> Example:
        features = features_of(record.image[None].astype(jnp.float32) / 255)[0]
        return Example(whole_factor(features, LONGEST), record.label)

    def init(key: jax.Array, released: Released) -> Descent:
        zeros = jnp.zeros((num_features(spec.shape), spec.num_classes))
        return Descent(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def step(state: Descent, access: SumAccess, key: jax.Array) -> tuple[Descent, dict[str, jax.Array]]:
        t, weights, momentum, average = state

        def error(r: Example) -> jax.Array:
            p = jax.nn.softmax(SHARPNESS * unit * (r.features @ weights))
            return p - jax.nn.one_hot(r.label, spec.num_classes)

        (total,), _ = access.release([OuterSum(lambda r: r.features, error, LONGEST, clip)])
        access.private_mean("accuracy", lambda r: jnp.argmax(r.features @ weights) == r.label)
        gradient = total / clip / access.dataset_size + WEIGHT_DECAY * weights
        momentum = MOMENTUM * momentum + gradient
        weights = weights - hp.reranker_learning_rate * (1 - 0.9 * t / steps) * momentum
        average = average + jnp.where(t >= steps // 2, weights, 0.0) / (steps - steps // 2)
        return Descent(t + 1, weights, momentum, average), {}

    return Phase(
        plan, init, step, release=lambda state: state.average, view=view, shown=("accuracy",), loops_on_cpu=True
    )
