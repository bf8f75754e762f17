"""Other conditions of a diffusion model that are near to a given one: what ``guided`` searches among."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# Alternatives that a search tries at most.
MOST_ALTERNATIVES = 25

# alternatives(condition) -> other conditions, [A, d] for one of shape [d], in the order in which they are tried.
Alternatives = Callable[[jax.Array], jax.Array]


def mixtures(classes: jax.Array, shares: tuple[float, ...] = (0.25, 0.5, 0.75), partners: int = 8) -> Alternatives:
    """Alternatives that are mixtures of a condition with classes that are near to it, nearest first.

    Args:
      classes: the embeddings of the classes or one-hot vectors, ``[K, d]`` with K of at least 2.
      shares: the partner's shares in (0, 1], in the order of the search: each is tried with all partners.
      partners: number of other classes, at most; the nearest, of equally near ones the first.

    Returns:
      A function from a condition ``[d]`` to ``[len(shares) * min(partners, K - 1), d]``.

    Examples:
      >>> import jax.numpy as jnp
      >>> from efsgd_jax.models.alternatives import mixtures
      >>> print(mixtures(jnp.eye(3), shares=(0.5,))(jnp.array([0.0, 1.0, 0.0])))
      [[0.5 0.5 0. ]
       [0.  0.5 0.5]]
    """

    def alternatives(condition: jax.Array) -> jax.Array:
        # The nearest class of all is the condition's own.
        nearest = jnp.argsort(jnp.sum(jnp.square(classes - condition), axis=1), stable=True)[1 : 1 + partners]
        share = jnp.asarray(shares, condition.dtype)[:, None, None]
        mixed = (1 - share) * condition + share * classes[nearest].astype(condition.dtype)
        return mixed.reshape(-1, len(condition))

    return alternatives
