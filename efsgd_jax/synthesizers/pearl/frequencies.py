"""The characteristic function of images at public random frequencies, and how far two of them are apart."""

import jax
import jax.numpy as jnp

# Key of the frequencies: public and the same in all runs.
PUBLIC_KEY = 21_060_459
# The default bandwidth, relative to the number of pixels.
PER_PIXEL = 0.165
# The weights of frequencies differ by about exp(+-REACH) at most, so that no single frequency decides.
REACH = 2.0


def frequencies(pixels: int, count: int, bandwidth: float) -> jax.Array:
    """The frequencies W, ``[D, m]``, normal with variance 1 / s_0: a function of public numbers alone."""
    variance = 1 / (bandwidth or PER_PIXEL * pixels)
    return variance**0.5 * jax.random.normal(jax.random.key(PUBLIC_KEY), (pixels, count))


def waves(images: jax.Array, w: jax.Array) -> jax.Array:
    """``z(x) = (cos x W, sin x W) / sqrt(m)``, ``[N, 2 m]``, of norm 1, for images ``[N, S, S, C]`` in [0, 1]."""
    angles = images.reshape(len(images), -1) @ w
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1) / w.shape[1] ** 0.5


def weights_of(critic: jax.Array, w: jax.Array) -> jax.Array:
    """Weights of the frequencies, ``[m]``, of mean 1, by importance sampling (PEARL, equation 9).

    They are the ratios of the densities of normal frequencies with precisions ``s = s_0 (1 + t)`` and ``s_0``, where
    ``t`` is ``tanh(critic)`` times a constant that bounds the ratio's spread. Zeros give equal weights.
    """
    pixels, count = w.shape
    scaled = jnp.square(w) / jnp.mean(jnp.square(w))  # s_0 w^2
    exponents = -REACH / (2 * pixels) ** 0.5 * jnp.tanh(critic) @ scaled
    return count * jax.nn.softmax(exponents)


def distance(generated: jax.Array, target: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum over classes of the squared distance of characteristic functions, without bias.

    For features z of independent images with mean f, and a target t, the mean of ``(z_i - t) (z_j - t)`` over pairs of
    different images has the expectation ``(f - t)^2``. The squared difference of the images' own mean would be larger
    by their variance over their number, and would thus favour images that are alike.

    Args:
      generated: features ``[K, n, 2 m]`` of n >= 2 images of each class.
      target: ``[K, 2 m]``.
      weights: of the frequencies, ``[m]``.
    """
    n = generated.shape[1]
    apart = generated - target[:, None]
    pairs = jnp.square(jnp.sum(apart, axis=1)) - jnp.sum(jnp.square(apart), axis=1)
    return jnp.sum(pairs @ jnp.tile(weights, 2)) / (n * (n - 1))
