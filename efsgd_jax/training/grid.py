"""The grid of images that checkpoints and releases show."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.data import to_uint8
from efsgd_jax.images import class_grid

GRID_COLUMNS = 10


def draw_grid(generate: Callable[..., jax.Array], params: Any, num_classes: int) -> np.ndarray:
    """One row of images per class, uint8 ``[H, W, C]``. Its key is public, so that it can be drawn again by anyone who
    has the generator."""
    labels = jnp.repeat(jnp.arange(num_classes), GRID_COLUMNS)
    drawn = to_uint8(np.asarray(generate(params, jax.random.key(0), labels)))
    return class_grid(drawn, np.asarray(labels), num_classes, columns=GRID_COLUMNS)
