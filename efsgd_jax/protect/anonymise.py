"""Anonymised images: a search in a generator's latent, away from what a recogniser sees (arXiv 2309.05330).

The search for an image x of class y starts from its own code u in the latent of a generator G, of which noise n leaves
the share ``keep``. It descends an energy over several outputs x_k = G(u_k, y) together, in steps of one length:

    u_k = keep u + sqrt(1 - keep^2) n_k

    E = sum_k max(0, cos(e(x_k), e(x)) - t) + w_c max(0, margin - (l_y - max_{j != y} l_j)(x_k))
        + w_p sum_{k < l} max(0, cos(e(x_k), e(x_l)) - t)

where e is the recogniser and l are the logits of a classifier. An output whose energy is zero stays as it is, and codes
stay where normal ones are. The output of least energy is taken.

The paper keeps what restores the original, the image's own embeddings and its inverted latent. Here the codes are
returned for whoever asks for them, and are written to no file by themselves.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.data import to_uint8
from efsgd_jax.protect.embedder import unit_norm
from efsgd_jax.protect.latent import Latent

# Number of images that are searched for at a time.
CHUNK = 50
# Largest norm of a code, relative to the root mean square norm of a normal one.
LARGEST = 1.1

# Float images in [0, 1], ``[B, S, S, C]``, to embeddings or logits ``[B, E]``; differentiable. An embedding of zeros or
# NaN says that nothing was found, such as no face.
Recogniser = Callable[[jax.Array], jax.Array]


class Search(NamedTuple):
    """The energy and its descent.

    Attributes:
      keep: the share of the code that the noise leaves, from 0 (nothing but the class) to 1 (no noise).
      target: cosine t that the energy does not lower further.
      outputs: number of outputs that are searched for together.
      steps: largest number of steps.
      length: length of a step in the latent, whose codes have unit variance.
      margin: logits by which the class leads.
      class_weight: w_c.
      apart_weight: w_p.
    """

    keep: float = 0.2
    target: float = 0.1
    outputs: int = 4
    steps: int = 25
    length: float = 0.3
    margin: float = 2.0
    class_weight: float = 0.2
    apart_weight: float = 0.3


class Anonymised(NamedTuple):
    """What the search found for N images.

    Attributes:
      images: the output of least energy, uint8 ``[N, S, S, C]``.
      outputs: all outputs, uint8 ``[N, K, S, S, C]``.
      codes: the codes of the originals, float32 ``[N, d]``, from which the generator restores them. Private.
    """

    images: np.ndarray
    outputs: np.ndarray
    codes: np.ndarray


def anonymise(
    images: np.ndarray,
    labels: np.ndarray,
    latent: Latent,
    embed: Recogniser,
    classify: Recogniser,
    key: jax.Array,
    search: Search | None = None,
) -> Anonymised:
    """One anonymised image for each image; the same arguments give the same images.

    Args:
      images: uint8 ``[N, S, S, C]``.
      labels: their classes, int ``[N]``.
      latent: the generator.
      embed: the recogniser e; embeddings need not have norm 1.
      classify: the logits l.
      key: of the noise. It is secret: who knows it repeats the search on any image and compares.
      search: the energy; None for the defaults.

    Formal guarantees:
      None. An anonymised image is a function of its original and of noise that hides a part of it.
    """
    find = jax.jit(functools.partial(_search, latent=latent, embed=embed, classify=classify, search=search or Search()))
    found = []
    for i in range(0, len(images), CHUNK):
        # A last chunk is filled up, so that the search is compiled once.
        rows = np.arange(i, i + CHUNK) % len(images)
        best, outputs, codes = find(images[rows], labels[rows], jax.random.fold_in(key, i))
        kept = min(CHUNK, len(images) - i)
        found.append([to_uint8(2 * best[:kept] - 1), to_uint8(2 * outputs[:kept] - 1), np.asarray(codes[:kept])])
    return Anonymised(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _search(
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    *,
    latent: Latent,
    embed: Recogniser,
    classify: Recogniser,
    search: Search,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    codes, count = latent.encode(images, labels), search.outputs
    n, d = codes.shape
    original = unit_norm(embed(images / 255.0))
    every = jnp.repeat(labels, count)
    apart = ~jnp.eye(count, dtype=bool)

    def energies(u: jax.Array) -> jax.Array:
        """The energy of each output, ``[N, K]``; a pair's counts half for each of the two."""
        x = latent.decode(u.reshape(n * count, d), every)
        # In what it cannot read a recogniser finds nothing, so that it does not find the original either.
        e = unit_norm(jnp.nan_to_num(embed(x))).reshape(n, count, -1)
        logits = classify(x)
        own = jnp.take_along_axis(logits, every[:, None], axis=1)[:, 0]
        other = jnp.max(jnp.where(jax.nn.one_hot(every, logits.shape[1], dtype=bool), -jnp.inf, logits), axis=1)
        seen = jax.nn.relu(jnp.einsum("nke,ne->nk", e, original) - search.target)
        left = jax.nn.relu(search.margin - (own - other)).reshape(n, count)
        alike = jax.nn.relu(jnp.einsum("nke,nle->nkl", e, e) - search.target)
        pairs = jnp.sum(jnp.where(apart, alike, 0.0), axis=2) / 2
        return seen + search.class_weight * left + search.apart_weight * pairs

    def within(u: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(u, axis=-1, keepdims=True)
        return u * jnp.minimum(1.0, LARGEST * d**0.5 / jnp.maximum(norm, 1e-6))

    def total(u: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = energies(u)
        return jnp.sum(found), found

    def step(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        i, u, _ = state
        gradient, found = jax.grad(total, has_aux=True)(u)
        gradient = jnp.nan_to_num(gradient, posinf=0.0, neginf=0.0)
        return i + 1, within(u - search.length * unit_norm(gradient)), found

    noise = jax.random.normal(key, (n, count, d))
    start = within(search.keep * codes[:, None] + (1 - search.keep**2) ** 0.5 * noise)
    first = (jnp.int32(0), start, jnp.full((n, count), jnp.inf))
    _, u, _ = jax.lax.while_loop(lambda s: (s[0] < search.steps) & jnp.any(s[2] > 0), step, first)
    outputs = latent.decode(u.reshape(n * count, d), every).reshape(n, count, *images.shape[1:])
    best = jnp.argmin(energies(u), axis=1)
    return jnp.take_along_axis(outputs, best[:, None, None, None, None], axis=1)[:, 0], outputs, codes
