"""A Born machine on a chain of pixels: probabilities are squares of a matrix product (arXiv 2508.06251).

    psi(x, y) = e^T A_1[x_1] ... A_h[x_h] L[y] A_h+1[x_h+1] ... A_D[x_D] e        p(x | y) = psi(x, y)^2 / Z(y)

with e the first unit vector. Z is a contraction of D matrices of side bond^2, and so is every conditional probability,
so that likelihood and samples are exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Chain(NamedTuple):
    """The matrices of P chains of D pixels with Q levels, P = 1 or the number K of classes.

    Attributes:
      cores: ``[P, D, Q, r, r]``, for the pixels in order.
      labels: ``[K, r, r]``, inserted after D // 2 pixels.
    """

    cores: jax.Array
    labels: jax.Array


def first_chain(key: jax.Array, chains: int, classes: int, pixels: int, levels: int, bond: int) -> Chain:
    """Matrices near the identity, for which all images have about one probability."""
    one, two = jax.random.split(key)
    eye = jnp.eye(bond)
    cores = eye / levels**0.5 + 0.1 / bond**0.5 * jax.random.normal(one, (chains, pixels, levels, bond, bond))
    labels = eye + 0.1 / bond**0.5 * jax.random.normal(two, (classes, bond, bond))
    return Chain(cores, labels)


def with_unit_norms(chain: Chain) -> Chain:
    """The same chain with each core scaled to the norm ``sqrt(r)``: probabilities do not depend on scales."""

    def scaled(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        norms = jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))
        return x * (x.shape[-1] ** 0.5 / jnp.maximum(norms, 1e-12))

    return Chain(scaled(chain.cores, (2, 3, 4)), scaled(chain.labels, (1, 2)))


def log_probability(chain: Chain, pixels: jax.Array, label: jax.Array) -> jax.Array:
    """``log p(x | y)`` in nats, for levels int ``[D]`` and a label."""
    cores, half = _cores_of(chain, label), pixels.shape[0] // 2

    def step(carry: tuple[jax.Array, jax.Array], core: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        v, logs = carry
        v = v @ core
        size = jnp.maximum(jnp.linalg.norm(v), 1e-30)
        return (v / size, logs + jnp.log(size)), None

    chosen = jax.vmap(lambda core, q: core[q])(cores, pixels)
    start = jnp.zeros(cores.shape[-1]).at[0].set(1.0), jnp.zeros(())
    (v, logs), _ = jax.lax.scan(step, start, chosen[:half])
    (v, logs), _ = jax.lax.scan(step, step((v, logs), chain.labels[label])[0], chosen[half:])
    return 2 * (logs + jnp.log(jnp.maximum(jnp.abs(v[0]), 1e-30))) - log_normaliser(chain, label)


def log_normaliser(chain: Chain, label: jax.Array) -> jax.Array:
    """``log Z(y)``."""
    return _environments(chain, label)[1]


def _cores_of(chain: Chain, label: jax.Array) -> jax.Array:
    return chain.cores[label if chain.cores.shape[0] > 1 else 0]


def _environments(chain: Chain, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Matrices ``[D, r, r]``, each of trace 1: of pixel i, the sum over all that follows it; and ``log Z(y)``."""
    cores, half = _cores_of(chain, label), chain.cores.shape[1] // 2
    size = cores.shape[-1]
    first = jnp.zeros((size, size)).at[0, 0].set(1.0), jnp.zeros(())

    def normalised(r: jax.Array, logs: jax.Array) -> tuple[jax.Array, jax.Array]:
        trace = jnp.maximum(jnp.trace(r), 1e-30)
        return r / trace, logs + jnp.log(trace)

    def step(carry: tuple[jax.Array, jax.Array], core: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        r, logs = carry
        return normalised(jnp.einsum("qij,jk,qlk->il", core, r, core), logs), r

    carry, right = jax.lax.scan(step, first, cores[half:], reverse=True)
    matrix = chain.labels[label]
    carry = normalised(matrix @ carry[0] @ matrix.T, carry[1])
    (r, logs), left = jax.lax.scan(step, carry, cores[:half], reverse=True)
    return jnp.concatenate([left, right]), logs + jnp.log(jnp.maximum(r[0, 0], 1e-30))


def draw(chain: Chain, key: jax.Array, label: jax.Array) -> jax.Array:
    """Samples levels int32 ``[D]`` from ``p(. | y)``, exactly."""
    cores, half = _cores_of(chain, label), chain.cores.shape[1] // 2
    right, _ = _environments(chain, label)

    def step(v: jax.Array, of_pixel: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        core, environment, pixel_key = of_pixel
        candidates = jnp.einsum("i,qij->qj", v, core)
        weights = jnp.einsum("qi,ij,qj->q", candidates, environment, candidates)
        level = jax.random.categorical(pixel_key, jnp.log(jnp.maximum(weights, 1e-30)))
        return _unit(candidates[level]), level

    keys = jax.random.split(key, cores.shape[0])
    v = jnp.zeros(cores.shape[-1]).at[0].set(1.0)
    v, first = jax.lax.scan(step, v, (cores[:half], right[:half], keys[:half]))
    _, second = jax.lax.scan(step, _unit(v @ chain.labels[label]), (cores[half:], right[half:], keys[half:]))
    return jnp.concatenate([first, second]).astype(jnp.int32)


def _unit(v: jax.Array) -> jax.Array:
    return v / jnp.maximum(jnp.linalg.norm(v), 1e-30)
