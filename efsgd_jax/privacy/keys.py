"""PRNG keys: secret ones from the operating system, and noise keys that are used once."""

import hashlib
import secrets
import warnings
import weakref
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

# ``fold_in(key, n)`` and ``split(key)[n]`` are the same key. Numbers this large are out of the reach of any split.
MEMBER, INITIALISED, RELEASE = 0xFFFF0001, 0xFFFF0002, 0x80000000


class DebuggingKeyWarning(UserWarning):
    """A key was made from a seed, which can be guessed: the noise can be subtracted."""


def fresh_key() -> jax.Array:
    """A typed PRNG key from the operating system's entropy.

    Formal guarantees:
      The Gaussian mechanism's guarantee holds against whoever does not know the noise. A key that can be
      guessed (``jax.random.key(0)``) lets anyone subtract it. This one has the 64 bits of JAX's default
      generator, threefry2x32; keep it secret and use it once.

    Examples:
      >>> first, second = fresh_key(), fresh_key()
      >>> bool(jnp.all(jax.random.key_data(first) == jax.random.key_data(second)))
      False
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


def is_debugging_key(key: jax.Array) -> bool:
    """Whether a key is ``jax.random.key(seed)`` for a seed of at most 32 bits; False for traced ones."""
    if isinstance(key, jax.core.Tracer):
        return False
    with jax.ensure_compile_time_eval():
        words = np.asarray(jax.random.key_data(key.reshape(-1)))
        seeded = [jax.random.key(np.uint32(w[-1]), impl=jax.random.key_impl(key)) for w in words]
        return any(np.array_equal(w, jax.random.key_data(k)) for w, k in zip(words, seeded, strict=True))


def warn_of_debugging_key(key: jax.Array, what: str) -> bool:
    """Warns, loudly, if anyone can guess the key; returns whether."""
    found = is_debugging_key(key)
    if found:
        warnings.warn(
            f"{what} has a key made from a seed, such as jax.random.key(0): anyone can guess it and subtract the "
            "noise. This is for debugging and protects nothing; use efsgd_jax.privacy.fresh_key().",
            DebuggingKeyWarning,
            stacklevel=3,
        )
    return found


def derived(key: jax.Array, domain: int, number: jax.typing.ArrayLike) -> jax.Array:
    """The ``number``-th key of a kind, none of which ``split`` gives."""
    return jax.random.fold_in(jax.random.fold_in(key, np.uint32(domain)), number)


def release_keys(key: jax.Array, tree: Any, count: int) -> list[jax.Array]:
    """``count`` keys for a release; others for trees of other paths or shapes, such as another parameter group."""
    paths = [(jax.tree_util.keystr(p), np.shape(x)) for p, x in jax.tree_util.tree_leaves_with_path(tree)]
    structure = zlib.crc32(repr(paths).encode())
    return list(jax.random.split(derived(key, RELEASE, np.uint32(structure)), count))


_initialised: dict[bytes, int] = {}


def key_of_init(key: jax.Array) -> jax.Array:
    """``key``, the first time in this process; another one derived from it each further time.

    Two states that begin with one key would have the same noise, and the difference of their releases none. A traced
    key is not known here, and one made from a seed, which protects nothing, stays reproducible.
    """
    if isinstance(key, jax.core.Tracer) or key.ndim or is_debugging_key(key):
        return jax.random.clone(key)
    with jax.ensure_compile_time_eval():
        name = hashlib.sha256(np.asarray(jax.random.key_data(key)).tobytes()).digest()
    number = _initialised[name] = _initialised.get(name, -1) + 1
    return derived(key, INITIALISED, number) if number else jax.random.clone(key)


class UsedOnce:
    """Refuses a key object that was used before: an update that is made twice from one state.

    It sees objects, and so what is called eagerly and what is traced within one function, but not two calls of one
    compiled function: ``jax.config.update("jax_debug_key_reuse", True)`` sees those.
    """

    def __init__(self) -> None:
        self._seen: dict[int, weakref.ref[Any]] = {}

    def check(self, key: jax.Array) -> None:
        """Raises ``ValueError`` the second time."""
        name = id(key)
        if name in self._seen and self._seen[name]() is key:
            raise ValueError(
                "this state has noised a release before, and would give another one the same noise, so that their "
                "difference has none: go on from the state that update returned. To compare code, use a key from a "
                "seed."
            )
        self._seen[name] = weakref.ref(key, lambda _: self._seen.pop(name, None))


@custom_vmap
def member_key(key: jax.Array, witness: Any) -> jax.Array:
    """``key`` itself; under ``vmap`` over ``key`` or ``witness``, a different key for each member.

    ``vmap`` copies what is not batched, so an optimizer state that closes over one key would give every
    member of an ensemble the *same* noise, and the difference of two members would carry none at all. A state that was
    stacked from copies of one would do the same.
    """
    del witness
    return key


@member_key.def_vmap
def _split_over_members(axis_size: int, in_batched: Any, key: jax.Array, witness: Any) -> tuple[jax.Array, bool]:
    key_batched, _ = in_batched
    if not key_batched:
        key = jnp.broadcast_to(key, (axis_size, *key.shape))
    numbers = jnp.arange(axis_size, dtype=jnp.uint32)

    def of_member(key: jax.Array, number: jax.Array) -> jax.Array:
        return jax.vmap(lambda k: derived(k, MEMBER, number))(key.reshape(-1)).reshape(key.shape)

    return member_key(jax.vmap(of_member)(key, numbers), witness), True  # again, for an enclosing vmap
