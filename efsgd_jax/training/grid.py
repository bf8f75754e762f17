"""The grid of generated images that is saved with checkpoints and with the release."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.data import to_uint8
from efsgd_jax.images import class_grid

# Number of images of each class.
GRID_COLUMNS = 10


def draw_grid(generate: Callable[..., jax.Array], params: Any, num_classes: int) -> np.ndarray:
    """Generates a grid with ``GRID_COLUMNS`` images of each class, uint8 ``[H, W, C]``; see ``class_grid``.

    Its PRNG key is public, so that anyone who has the generator can generate the same grid.
    """
    labels = jnp.repeat(jnp.arange(num_classes), GRID_COLUMNS)
    drawn = to_uint8(np.asarray(generate(params, jax.random.key(0), labels)))
    return class_grid(drawn, np.asarray(labels), num_classes, columns=GRID_COLUMNS)
