"""A private linear classifier on oriented gradients: it says how well a drawn image shows its class.

Oriented gradients (Dalal, Triggs, 2005) are fixed, so that only the linear layer has to be paid for, and a linear
layer on features of length 1 is learned in few steps of full-batch gradient descent.
"""

import math

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.one_shot import FACTOR_BITS, NoiseSupply, Release, whole_rows

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


def fit_reranker(
    key: jax.Array,
    features: jax.Array,
    labels: jax.Array,
    num_classes: int,
    noise_multiplier: float,
    *,
    steps: int,
    l2_norm_clip: float,
    learning_rate: float,
) -> jax.Array:
    """Weights ``[F, K]`` of multinomial logistic regression: the mean of the second half of noisy gradient descent.

    Args:
      key: typed PRNG key, secret and used once.
      features: ``[N, F]``.
      labels: int ``[N]``.
      num_classes: K.
      noise_multiplier: sigma of one release that costs what all steps cost; 0 for no noise.
      steps: T.
      l2_norm_clip: C, of an example's gradient ``phi (p - y)^T`` in units of ``SHARPNESS``.
      learning_rate: of the first step, for gradients in units of C; decays to a tenth.

    Formal guarantees:
      Each step releases the exact sum of all examples' gradients, each of norm at most C, with noise multiplier
      ``sigma sqrt(T)``; T of these are one ``GaussianDpEvent(sigma)``. N is public.
    """
    n = features.shape[0]
    target = jax.nn.one_hot(labels, num_classes)
    sigma = noise_multiplier * math.sqrt(steps)
    whole = whole_rows(features, LONGEST, LONGEST / 2**FACTOR_BITS, FACTOR_BITS)

    def step(t: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        weights, momentum, average = carry
        error = jnp.exp(log_probabilities(weights, features)) - target
        # In units of C: the gradient is an outer product, whose norm is the product of the norms.
        noise = NoiseSupply(jax.random.fold_in(key, t), features.shape[1] * num_classes if sigma > 0 else 0)
        release = Release(noise, 1.0, sigma)
        partners = release.partners(error / l2_norm_clip, whole, 1 / LONGEST, LONGEST)
        total = release.products(whole, partners)
        momentum = MOMENTUM * momentum + total / n
        weights = weights - learning_rate * (1 - 0.9 * t / steps) * momentum
        return weights, momentum, average + jnp.where(t >= steps // 2, weights, 0.0) / (steps - steps // 2)

    zeros = jnp.zeros((features.shape[1], num_classes))
    return jax.lax.fori_loop(0, steps, step, (zeros, zeros, zeros))[2]
