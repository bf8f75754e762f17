"""Records whose unit of privacy is a person with several images: each person has at most m of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any
# loss(params, example, key) -> (value, {name: scalar})
Loss = Callable[[PyTree, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


class Units(NamedTuple):
    """The images of G units, such as persons, in place of N single records.

    A unit with fewer than m images repeats one of them in the places that are not ``present``.

    Attributes:
      rows: pytree; each leaf is ``[G, m, ...]``.
      present: bool ``[G, m]``; at least one place of each unit is True.
    """

    rows: PyTree
    present: jax.Array

    @property
    def most(self) -> int:
        """m, the largest number of images of a unit; public."""
        return self.present.shape[1]

    def flat(self) -> tuple[PyTree, jax.Array]:
        """All places one after the other: a pytree of leaves ``[G m, ...]``, and ``present`` ``[G m]``."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self.rows), self.present.reshape(-1)


def loss_of_unit(loss: Loss) -> Loss:
    """The loss of one unit: the mean of the losses of its images. ``example`` is a ``Units`` without the axis G.

    Its gradient is the mean of the gradients of the unit's images, so that one clip norm bounds all of them together.

    Examples:
      >>> square = lambda w, x, key: (jnp.square(w - x), {})
      >>> unit = Units(jnp.array([1.0, 3.0, 3.0]), jnp.array([True, True, False]))
      >>> jax.grad(lambda w: loss_of_unit(square)(w, unit, jax.random.key(0))[0])(0.0)
      Array(-4., dtype=float32, weak_type=True)
    """

    def of_unit(params: PyTree, example: Units, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        rows, present = example
        each = jax.vmap(loss, in_axes=(None, 0, 0))(params, rows, jax.random.split(key, len(present)))
        count = jnp.sum(present)
        return jax.tree.map(lambda x: jnp.sum(jnp.where(present, x, 0.0)) / count, each)

    return of_unit
