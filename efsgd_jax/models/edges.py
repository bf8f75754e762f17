"""The strength of edges in an image, whose differences a reconstruction loss may add to those of pixels.

A squared error of pixels is smallest for an average, which is smooth: where it is unknown on which pixels a seam or a
print lies, none is drawn. How strong edges are around a place, and in which direction they rise, hardly depends on
where exactly they lie, so that a network that is to match these strengths too draws some.
"""

import math

import jax
import jax.numpy as jnp

# Number of directions that are told apart.
DIRECTIONS = 8
# Distances in pixels over which differences are taken.
DISTANCES = (1, 2)
# Side of the windows over which strengths are averaged, and the distance between two windows, in pixels.
WINDOW, STRIDE = 4, 2
# Mean square below which edges count as absent, for pixels in [0, 1]; it keeps the gradient of the root small.
FAINT = 1e-4


def edge_strengths(images: jax.Array) -> jax.Array:
    """Root mean square of directional differences in windows of 4x4 pixels, for each channel.

    A difference counts for the directions in which brightness rises, as in oriented gradients (Dalal, Triggs, 2005).

    Args:
      images: float ``[N, S, S, C]``, of which black and white are 0 and 1.

    Returns:
      float ``[N, F]``, each at least 0.01.

    Examples:
      >>> import jax.numpy as jnp
      >>> half = jnp.zeros((1, 8, 8, 1)).at[:, :, 4:].set(1.0)  # black on the left, white on the right
      >>> edge_strengths(half).shape, float(edge_strengths(half).max()) > 0.4
      ((1, 256), True)
      >>> round(float(edge_strengths(jnp.zeros((1, 8, 8, 1))).max()), 4)
      0.01
    """
    found = []
    for distance in DISTANCES:
        right = jnp.pad(images[:, :, distance:] - images[:, :, :-distance], _at_the_end(2, distance))
        down = jnp.pad(images[:, distance:] - images[:, :-distance], _at_the_end(1, distance))
        for i in range(DIRECTIONS):
            angle = i * 2 * math.pi / DIRECTIONS
            rising = jnp.square(jax.nn.relu(right * math.cos(angle) + down * math.sin(angle)))
            window, stride = (1, WINDOW, WINDOW, 1), (1, STRIDE, STRIDE, 1)
            mean = jax.lax.reduce_window(rising, 0.0, jax.lax.add, window, stride, "SAME") / WINDOW**2
            found.append(jnp.sqrt(mean + FAINT).reshape(len(images), math.prod(mean.shape[1:])))
    return jnp.concatenate(found, axis=1)


def _at_the_end(axis: int, width: int) -> list[tuple[int, int]]:
    """The padding that appends ``width`` zeros along one of the axes of images."""
    return [(0, width if a == axis else 0) for a in range(4)]
