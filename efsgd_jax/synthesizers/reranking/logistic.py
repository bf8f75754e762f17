"""A private linear classifier on oriented gradients, which scores how well a generated image shows its class.

Features are a fixed function of the image (``oriented_gradients``), so that only the linear layer spends privacy
budget. A linear layer on features of norm 1 needs few steps of full-batch gradient descent.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efsgd_jax.data.dataset import ImageSpec
from efsgd_jax.privacy import OuterSum, PlannedPhase
from efsgd_jax.privacy.row_sums import FACTOR_BITS
from efsgd_jax.privacy.sum_access import SumAccess
from efsgd_jax.privacy.sum_terms import whole_factor
from efsgd_jax.synthesizers.base import Phase, Record, Released
from efsgd_jax.synthesizers.reranking.options import RerankerOptions
from efsgd_jax.synthesizers.reranking.oriented_gradients import LONGEST, features_of, num_features

# Factor of the logits, which are SHARPNESS * features @ weights. Features have a norm of about 1; without the factor,
# logits for weights of norm 1 would be small.
SHARPNESS = 10.0
# Momentum of the gradient descent.
MOMENTUM = 0.9
# Added to the gradient, times the weights. Without it, weights grow in all directions of the noise, and the classifier
# is surer than it is right.
WEIGHT_DECAY = 4e-4


def log_probabilities(weights: jax.Array, features: jax.Array) -> jax.Array:
    """Log-probabilities of the classes, ``[N, K]``, for weights ``[F, K]`` and features ``[N, F]``."""
    return jax.nn.log_softmax(SHARPNESS * features @ weights)


# features(record, released) -> [P], of norm at most ``LONGEST``.
Features = Callable[[Record, Released], jax.Array]


class Example(NamedTuple):
    """The view of a record that the steps read.

    Attributes:
      features: ``[P]``, in integer units of ``LONGEST / 2^FACTOR_BITS`` (``sum_terms.whole_factor``).
      label: int32.
      labelled: whether the label is read; a record without one adds zero, whatever its label is.
    """

    features: jax.Array
    label: jax.Array
    labelled: jax.Array


class Descent(NamedTuple):
    """The optimiser's state: step, weights ``[P, K]``, their momentum, and the mean of the second half of iterates."""

    step: jax.Array
    weights: jax.Array
    momentum: jax.Array
    average: jax.Array


class DescentOptions(NamedTuple):
    """Hyperparameters of ``descend``.

    Attributes:
      steps: number of steps.
      learning_rate: of gradients divided by ``clip``; it decays linearly to a tenth.
      clip: clip norm C of an example's gradient.
      weight_decay: added to the gradient, times the weights.
      labelled: share of the records whose label is read, a public number.
    """

    steps: int
    learning_rate: float
    clip: float
    weight_decay: float
    labelled: float = 1.0


def start_of_descent(size: int, classes: int) -> Descent:
    """The state before the first step, for weights ``[size, classes]``."""
    zeros = jnp.zeros((size, classes))
    return Descent(jnp.zeros((), jnp.int32), zeros, zeros, zeros)


def descend(state: Descent, access: SumAccess, options: DescentOptions) -> Descent:
    """One step of multinomial logistic regression on all records, whose view is ``Example``.

    With features phi, predicted probabilities p and the one-hot label y, an example's gradient (divided by
    ``SHARPNESS``) is ``phi (p - y)^T``. Its norm is at most C, because ``p - y`` is clipped to ``C / LONGEST``. The
    weights of the second half of the steps are averaged.

    Formal guarantees:
      One ``access.release`` of the sum of all examples' clipped gradients. N and the share of records whose label is
      read are public.
    """
    t, weights, momentum, average = state
    unit, steps = LONGEST / 2**FACTOR_BITS, options.steps

    def error(r: Example) -> jax.Array:
        p = jax.nn.softmax(SHARPNESS * unit * (r.features @ weights))
        return jnp.where(r.labelled, p - jax.nn.one_hot(r.label, weights.shape[1]), 0.0)

    (total,), _ = access.release([OuterSum(lambda r: r.features, error, LONGEST, options.clip)])
    access.private_mean(
        "accuracy", lambda r: (r.labelled & (jnp.argmax(r.features @ weights) == r.label)) / options.labelled
    )
    gradient = total / (options.clip * options.labelled * access.dataset_size) + options.weight_decay * weights
    momentum = MOMENTUM * momentum + gradient
    weights = weights - options.learning_rate * (1 - 0.9 * t / steps) * momentum
    average = average + jnp.where(t >= steps // 2, weights, 0.0) / (steps - steps // 2)
    return Descent(t + 1, weights, momentum, average)


def reranker_phase(spec: ImageSpec, options: RerankerOptions, plan: PlannedPhase) -> Phase:
    """Logistic regression on the oriented gradients of images; releases weights ``[F, K]``; see ``descent_phase``."""

    def features(record: Record, released: Released) -> jax.Array:
        return features_of(record.image[None].astype(jnp.float32) / 255)[0]

    return descent_phase(spec.num_classes, num_features(spec.shape), features, options, plan)


def descent_phase(classes: int, size: int, features: Features, options: RerankerOptions, plan: PlannedPhase) -> Phase:
    """Multinomial logistic regression by noisy full-batch gradient descent (``descend``); releases weights ``[P, K]``.

    Args:
      classes: number K of classes.
      size: number P of features.
      features: function of one record and of what earlier phases released.
      options: hyperparameters of the descent.
      plan: the planned phase.

    Formal guarantees:
      Each step is one ``access.release`` of the sum of all examples' clipped gradients. N is public.
    """
    settings = DescentOptions(plan.steps, options.reranker_learning_rate, options.reranker_clip, WEIGHT_DECAY)

    def view(record: Record, released: Released) -> Example:
        return Example(whole_factor(features(record, released), LONGEST), record.label, jnp.asarray(True))

    def init(key: jax.Array, released: Released) -> Descent:
        return start_of_descent(size, classes)

    def step(state: Descent, access: SumAccess, key: jax.Array) -> tuple[Descent, dict[str, jax.Array]]:
        return descend(state, access, settings), {}

    return Phase(
        plan, init, step, release=lambda state: state.average, view=view, shown=("accuracy",), loops_on_cpu=True
    )
