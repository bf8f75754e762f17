"""A private linear classifier on oriented gradients: it says how well a drawn image shows its class.

Oriented gradients (Dalal, Triggs, 2005) are fixed, so that only the linear layer has to be paid for, and a linear
layer on features of length 1 is learned in few steps of full-batch gradient descent.
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

ORIENTATIONS = 8
# Cells along a side; an image has this many or somewhat more.
CELLS = 7
# Beside features of length 1.
CONSTANT = 0.3
# Of both together.
LONGEST = 1.0001 * math.hypot(1.0, CONSTANT)
# Gradients of cells that are fainter than this are not amplified to the strength of others.
FAINT = 0.02
SHARPNESS = 10.0
MOMENTUM = 0.9


def oriented_gradients(images: jax.Array) -> jax.Array:
    """Features of float images ``[N, S, S, C]`` in [0, 1]: ``[N, F]``, each row of the same length.

    Strengths of the gradient in eight directions, per cell and relative to the cells around it, and the cells' means.
    """
    side = images.shape[1]
    cell = max(2, side // CELLS)
    grey = jnp.mean(images, axis=-1)
    right = jnp.pad(grey[:, :, 2:] - grey[:, :, :-2], ((0, 0), (0, 0), (1, 1)))
    down = jnp.pad(grey[:, 2:] - grey[:, :-2], ((0, 0), (1, 1), (0, 0)))
    angles = jnp.arange(ORIENTATIONS) * (2 * math.pi / ORIENTATIONS)
    along = jax.nn.relu(right[..., None] * jnp.cos(angles) + down[..., None] * jnp.sin(angles))
    # A cubed cosine is about as narrow as a direction's share of the circle.
    tuned = along**3 / (jnp.square(right) + jnp.square(down) + 1e-8)[..., None]
    strength = _mean_over(tuned, cell + 2, cell)
    around = _mean_over(jnp.sum(strength, axis=-1, keepdims=True), 3, 1)
    relative = jnp.sqrt(strength / (around + FAINT))
    means = _mean_over(images, cell, cell)
    n = images.shape[0]
    features = jnp.concatenate([relative.reshape(n, -1), 0.5 * means.reshape(n, -1)], axis=1)
    features = features - jnp.mean(features, axis=1, keepdims=True)
    features = features / jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    return jnp.concatenate([features, jnp.full((n, 1), CONSTANT)], axis=1)


def num_features(shape: tuple[int, int, int]) -> int:
    """F of images ``[S, S, C]``."""
    return jax.eval_shape(oriented_gradients, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1]


def _mean_over(x: jax.Array, window: int, stride: int) -> jax.Array:
    dims, strides = (1, window, window, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, dims, strides, "SAME") / window**2


def log_probabilities(weights: jax.Array, features: jax.Array) -> jax.Array:
    """``[N, K]`` for weights ``[F, K]``."""
    return jax.nn.log_softmax(SHARPNESS * features @ weights)


class Example(NamedTuple):
    """What the steps read of a record: its features in whole units (``sum_access.whole_factor``), and its label."""

    features: jax.Array
    label: jax.Array


class Descent(NamedTuple):
    """Weights ``[F, K]``, their momentum, and the mean of the weights of the second half of all steps."""

    step: jax.Array
    weights: jax.Array
    momentum: jax.Array
    average: jax.Array


def reranker_phase(spec: ImageSpec, hp: Hyperparameters, plan: PlannedPhase) -> Phase:
    """Multinomial logistic regression by noisy full-batch gradient descent; releases weights ``[F, K]``.

    An example's gradient is ``phi (p - y)^T`` in units of ``SHARPNESS``, clipped to C = ``hp.reranker_clip``; the
    learning rate is for gradients in units of C and decays to a tenth.

    Formal guarantees:
      Each step is one ``access.release`` of the sum of all examples' clipped gradients. N is public.
    """
    clip, unit, steps = hp.reranker_clip, LONGEST / 2**FACTOR_BITS, plan.steps

    def view(record: Record) -> Example:
        features = oriented_gradients(record.image[None].astype(jnp.float32) / 255)[0]
        return Example(whole_factor(features, LONGEST), record.label)

    def init(key: jax.Array, released: Released) -> Descent:
        zeros = jnp.zeros((num_features(spec.shape), spec.num_classes))
        return Descent(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def step(state: Descent, access: SumAccess, key: jax.Array) -> tuple[Descent, dict[str, jax.Array]]:
        t, weights, momentum, average = state

        def error(r: Example) -> jax.Array:
            p = jax.nn.softmax(SHARPNESS * (unit * r.features) @ weights)
            return p - jax.nn.one_hot(r.label, spec.num_classes)

        (total,), _ = access.release([OuterSum(lambda r: r.features, error, LONGEST, clip)])
        access.private_mean("accuracy", lambda r: jnp.argmax(r.features @ weights) == r.label)
        momentum = MOMENTUM * momentum + total / clip / access.dataset_size
        weights = weights - hp.reranker_learning_rate * (1 - 0.9 * t / steps) * momentum
        average = average + jnp.where(t >= steps // 2, weights, 0.0) / (steps - steps // 2)
        return Descent(t + 1, weights, momentum, average), {}

    return Phase(plan, init, step, release=lambda state: state.average, view=view, shown=("accuracy",))
