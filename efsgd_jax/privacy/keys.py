"""PRNG keys: secret ones from the operating system, and one per member of a vmapped ensemble."""

import secrets
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap


def fresh_key() -> jax.Array:
    """A typed PRNG key from the operating system's entropy.

    Formal guarantees:
      The Gaussian mechanism's guarantee holds against whoever does not know the noise. A key that can be
      guessed (``jax.random.key(0)``) lets anyone subtract it. This one has the 64 bits of JAX's default
      generator, threefry2x32; keep it secret and use it once.
    """
    words = np.frombuffer(secrets.token_bytes(8), dtype=np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


def as_typed_key(key: Any) -> jax.Array:
    """A typed key from a typed key or a legacy uint32 key array.

    Raises:
      TypeError: anything else; in particular a Python integer, because a seed can be guessed.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32:
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(
        f"key must be a JAX PRNG key, got {key!r:.60}. A number that can be guessed lets anyone subtract the "
        "noise: use efsgd_jax.privacy.fresh_key()."
    )


@custom_vmap
def member_key(key: jax.Array, witness: Any) -> jax.Array:
    """``key`` itself; under ``vmap`` over ``witness`` alone, a different key for each member.

    ``vmap`` copies what is not batched, so an optimizer state that closes over one key would give every
    member of an ensemble the *same* noise, and the difference of two members would carry none at all.
    """
    del witness
    return key


@member_key.def_vmap
def _split_over_members(axis_size: int, in_batched: Any, key: jax.Array, witness: Any) -> tuple[jax.Array, bool]:
    key_batched, _ = in_batched
    if not key_batched:
        split = jax.vmap(lambda k: jax.random.split(k, axis_size), out_axes=1)(key.reshape(-1))
        key = split.reshape((axis_size, *key.shape))
    return member_key(key, witness), True  # again, for an enclosing vmap
