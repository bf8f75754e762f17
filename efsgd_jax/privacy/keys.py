"""PRNG keys: secret keys from the operating system, and noise keys that are used only once."""

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

# Domains of derived keys. ``fold_in(key, n)`` and ``split(key)[n]`` are the same key; no split has as many keys as
# these numbers.
MEMBER, INITIALISED, RELEASE = 0xFFFF0001, 0xFFFF0002, 0x80000000


class DebuggingKeyWarning(UserWarning):
    """A key for debugging: it was made from a seed, which can be guessed, so that the noise can be subtracted."""


def fresh_key() -> jax.Array:
    """A typed PRNG key from the operating system's random source.

    Formal guarantees:
      The Gaussian mechanism's guarantee holds against anyone who does not know the noise. If the key can be guessed
      (``jax.random.key(0)``), anyone can subtract the noise. This key has the 64 bits of JAX's default generator,
      threefry2x32; keep it secret and use it once.

    Raises:
      ValueError: it is called while JAX traces a function (``jit``, ``scan``, ``vmap``): the key would be a constant of
        the compiled program, and each of its calls would have the same noise.

    Examples:
      >>> first, second = fresh_key(), fresh_key()
      >>> bool(jnp.all(jax.random.key_data(first) == jax.random.key_data(second)))
      False
    """
    if isinstance(jnp.zeros(()) + 0, jax.core.Tracer):
        raise ValueError(
            "fresh_key() is called inside of a function that JAX compiles or maps: its key would be a constant there, "
            "and every call would have the same noise. Call it outside, and pass the key as an argument."
        )
    return unchecked_key()


def unchecked_key() -> jax.Array:
    """``fresh_key()`` for a place where a key is required but noise is drawn with another one."""
    words = np.frombuffer(secrets.token_bytes(8), dtype=np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


def as_typed_key(key: Any) -> jax.Array:
    """Converts a typed key or a legacy uint32 key array to a typed key.

    Raises:
      TypeError: ``key`` is neither; in particular if it is a Python integer, since a seed can be guessed.
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
    """Whether a key is ``jax.random.key(seed)`` for a seed of at most 32 bits; False for a traced key.

    Such a key can be found by trying all seeds, and the noise can then be computed and subtracted. It protects nothing.
    It is accepted, with a warning, because examples and tests need noise that is the same in every run.
    """
    if isinstance(key, jax.core.Tracer):
        return False
    with jax.ensure_compile_time_eval():
        words = np.asarray(jax.random.key_data(key.reshape(-1)))
        seeded = [jax.random.key(np.uint32(w[-1]), impl=jax.random.key_impl(key)) for w in words]
        return any(np.array_equal(w, jax.random.key_data(k)) for w, k in zip(words, seeded, strict=True))


def warn_of_debugging_key(key: jax.Array, what: str) -> bool:
    """Warns if ``key`` was made from a seed, and returns whether it was; ``what`` names the user of the key."""
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
    """The ``number``-th key derived from ``key`` in a domain; no ``split`` of ``key`` gives the same key."""
    return jax.random.fold_in(jax.random.fold_in(key, np.uint32(domain)), number)


def release_keys(key: jax.Array, tree: Any, count: int) -> list[jax.Array]:
    """``count`` keys for a release; trees with different paths or shapes, such as parameter groups, get different keys.

    Args:
      key: typed PRNG key, secret and used once.
      tree: the pytree to be released, of which only paths and shapes are read.
      count: number of keys.
    """
    paths = [(jax.tree_util.keystr(p), np.shape(x)) for p, x in jax.tree_util.tree_leaves_with_path(tree)]
    structure = zlib.crc32(repr(paths).encode())
    return list(jax.random.split(derived(key, RELEASE, np.uint32(structure)), count))


_initialised: dict[bytes, int] = {}


def key_of_init(key: jax.Array) -> jax.Array:
    """``key`` on the first call with it in this process; on each further call a different key derived from it.

    Two states that begin with the same key would have the same noise, so that the difference of their releases would
    have no noise. The key is always returned as it is if it is traced, since its value is not known then, if it is an
    array of keys, or if it was made from a seed: such a key does not protect anything, and runs stay reproducible.
    """
    if isinstance(key, jax.core.Tracer) or key.ndim or is_debugging_key(key):
        return jax.random.clone(key)
    with jax.ensure_compile_time_eval():
        name = hashlib.sha256(np.asarray(jax.random.key_data(key)).tobytes()).digest()
    number = _initialised[name] = _initialised.get(name, -1) + 1
    return derived(key, INITIALISED, number) if number else jax.random.clone(key)


class UsedOnce:
    """Detects a key object that is used a second time, as when two updates are computed from the same state.

    It compares Python objects. It therefore detects reuse in eager calls and within one traced function, but not in two
    calls of the same compiled function.
    """

    def __init__(self) -> None:
        self._seen: dict[int, weakref.ref[Any]] = {}

    def check(self, key: jax.Array) -> None:
        """Raises ``ValueError`` if the same key object was checked before."""
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
    """``key`` itself; under ``vmap`` over ``key`` or ``witness``, a different key for each member of the ensemble.

    ``vmap`` uses the same value for all members if it is not batched. An optimizer that closes over one key would thus
    give every member the *same* noise, and the difference of two members would have no noise. The same would happen
    with a state that was stacked from copies of one state.

    Args:
      key: typed PRNG key.
      witness: pytree of everything that may differ between members: gradients, parameters, noise multiplier, clip norm.
        Only whether ``vmap`` maps over any of it matters, not its values.
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
