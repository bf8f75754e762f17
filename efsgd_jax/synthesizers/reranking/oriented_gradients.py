"""Oriented gradients (Dalal, Triggs, 2005): what the re-ranking classifiers read of an image.

They are a fixed function of the image, so that they spend no privacy budget.
"""

import math

import jax
import jax.numpy as jnp

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
