"""The releases of full batches, which keep the whole numbers that they would noise."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.privacy.noise import NOISE_WIDTH
from efsgd_jax.privacy.one_shot import NoiseSupply, Release
from efsgd_jax.synthesizers.gaussian_mixture import fit as mixture_fit
from efsgd_jax.synthesizers.gaussian_mixture import reranker as reranker
from efsgd_jax.synthesizers.gaussian_mixture.fit import FitOptions, clip_rows

PIXELS, CLIP = 100, 10.0
ABSENT = -1


class NoNoise(NoiseSupply):
    def __init__(self) -> None:
        pass

    def take(self, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros(shape, jnp.int32)


class Recording(Release):
    """Keeps the whole numbers that are noised, and takes one row out as if the record were absent."""

    numbers: list[tuple[Any, float]]
    blank: Any = ABSENT

    def __init__(self, noise: NoiseSupply, sensitivity: float, noise_multiplier: float):
        super().__init__(noise, sensitivity, noise_multiplier)
        self._supply = NoNoise()

    def _others(self, groups: jax.Array) -> jax.Array:
        return jnp.where(jnp.arange(len(groups)) == Recording.blank, ABSENT, groups)

    def sums(self, rows: Any, groups: jax.Array, num_groups: int) -> jax.Array:
        return super().sums(rows, self._others(groups), num_groups)

    def squares(self, rows: Any, groups: jax.Array, num_groups: int, weight: float = 1.0) -> jax.Array:
        return super().squares(rows, self._others(groups), num_groups, weight)

    def products(self, a: Any, b: Any) -> jax.Array:
        here = (jnp.arange(len(b.values)) != Recording.blank)[:, None]
        return super().products(a, b._replace(values=jnp.where(here, b.values, 0.0)))

    def _noised(self, total: Any, unit: float, count: int, bits: int, *, symmetric: bool = False) -> jax.Array:
        Recording.numbers.append(((total.high, total.low), unit / (self._unit * NOISE_WIDTH)))
        return super()._noised(total, unit, count, bits, symmetric=symmetric)


K, M = 2, 2
CENTRES = 0.2 * jax.random.normal(jax.random.key(7), (K, M, PIXELS))
NONE = NoNoise()


def one_step_of_reranker(x: jax.Array, y: jax.Array) -> None:
    features = jnp.concatenate([x / CLIP, jnp.full((len(x), 1), reranker.CONSTANT)], axis=1)
    loop, jax.lax.fori_loop = jax.lax.fori_loop, lambda low, high, body, carry: body(0, carry)
    try:
        reranker.fit_reranker(jax.random.key(0), features, y, K, 1.0, steps=1, l2_norm_clip=0.5, learning_rate=1.0)
    finally:
        jax.lax.fori_loop = loop


RELEASES: dict[str, Callable[[jax.Array, jax.Array], Any]] = {
    "class means": lambda x, y: mixture_fit._class_means(NONE, x, y, K, CLIP, 1.0),
    "second moment": lambda x, y: mixture_fit._principal_basis(NONE, x, FitOptions(directions=3), 1.0),
    "k-means step": lambda x, y: mixture_fit._cluster_step(NONE, clip_rows(x / CLIP, 1.0), y, CENTRES, 1.0),
    "moments": lambda x, y: mixture_fit._moments(
        NONE, clip_rows(x / CLIP, 1.0), y, CENTRES, jnp.ones(PIXELS, bool), 0.8, 1.0
    ),
    "classifier's step": one_step_of_reranker,
}
