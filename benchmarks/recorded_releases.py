"""The releases of full batches, by the phases that make them; they keep the whole numbers that they would noise."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from efsgd_jax.data import ImageSpec
from efsgd_jax.privacy import FullBatchMechanism, PlannedPhase, row_sums, sum_access, sum_terms
from efsgd_jax.privacy.noise import NOISE_WIDTH
from efsgd_jax.privacy.one_shot import NoiseSupply, Release
from efsgd_jax.privacy.row_sums import ExactSum, Rows
from efsgd_jax.privacy.sum_terms import whole_factor
from efsgd_jax.synthesizers.base import Phase
from efsgd_jax.synthesizers.gaussian_mixture.fit import ClassMeans, Vector, fit_phases
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters, budget_shares
from efsgd_jax.synthesizers.gaussian_mixture.space import Basis
from efsgd_jax.synthesizers.reranking import logistic, oriented_gradients

SIDE = 10
PIXELS, CLIP = SIDE**2, 10.0
ABSENT = -1


class NoNoise(NoiseSupply):
    def __init__(self) -> None:
        pass

    def take(self, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros(shape, jnp.int32)


class Recording(Release):
    """Keeps the whole numbers that are noised, and blanks one row."""

    numbers: list[tuple[Any, float]]
    blank: Any = ABSENT

    def __init__(self, noise: NoiseSupply, sensitivity: float, noise_multiplier: float):
        super().__init__(noise, sensitivity, noise_multiplier)
        self._supply = NoNoise()

    def noised(self, exact: ExactSum, count: int) -> jax.Array:
        Recording.numbers.append(((exact.total.high, exact.total.low), exact.unit / (self._unit * NOISE_WIDTH)))
        return super().noised(exact, count)


def _others(groups: jax.Array) -> jax.Array:
    return jnp.where(jnp.arange(len(groups)) == Recording.blank, ABSENT, groups)


def _sum_rows(rows: Rows, groups: jax.Array, num_groups: int) -> ExactSum:
    return row_sums.sum_rows(rows, _others(groups), num_groups)


def _sum_squares(rows: Rows, groups: jax.Array, num_groups: int, weight: float = 1.0) -> ExactSum:
    return row_sums.sum_squares(rows, _others(groups), num_groups, weight)


def _sum_products(a: Rows, b: Rows) -> ExactSum:
    here = (jnp.arange(len(b.values)) != Recording.blank)[:, None]
    return row_sums.sum_products(a, b._replace(values=jnp.where(here, b.values, 0.0)))


def record() -> None:
    """From now on every access makes recording releases."""
    sum_access.Release = Recording  # type: ignore[misc]
    sum_terms.sum_rows, sum_terms.sum_squares, sum_terms.sum_products = _sum_rows, _sum_squares, _sum_products


SPEC = ImageSpec(SIDE, 1, 2)
OPTIONS = Hyperparameters(components=2, directions=PIXELS, mean_clip=CLIP, deviation_clip=6.0, cluster_steps=1)
# A basis in which all coordinates are there and no vector is clipped by much.
EARLIER = {
    "class means": ClassMeans(jnp.zeros((2, PIXELS)), jnp.ones(2), jnp.float32(1.0)),
    "basis": Basis(jnp.eye(PIXELS), jnp.full(PIXELS, 0.1), jnp.float32(0.1)),
    "centres": 0.2 * jax.random.normal(jax.random.key(7), (2, 2, PIXELS)),
}


def _one_step(phase: Phase, records: Any) -> None:
    mechanism = phase.plan.mechanism
    assert mechanism is not None
    access = mechanism.open(records, jax.random.key(0), jnp.int32(0), released=EARLIER)
    phase.step(phase.init(jax.random.key(1), EARLIER), access, jax.random.key(2))


def _plan(rows: int) -> dict[str, PlannedPhase]:
    """Each phase with noise of one sensitivity in each step, whatever its share of a budget is."""
    return {name: PlannedPhase(name, FullBatchMechanism(rows, 1.0), 1) for name in budget_shares(OPTIONS)}


def _of_mixture(name: str, x: jax.Array, y: jax.Array) -> None:
    named = {phase.name: phase for phase in fit_phases(SPEC, OPTIONS, _plan(len(x)))}
    _one_step(named[name], Vector(x, y))


def _of_reranker(x: jax.Array, y: jax.Array) -> None:
    """On the pixels in the place of features; their number has to fit."""
    phase = logistic.reranker_phase(SPEC, OPTIONS, _plan(len(x))["reranker"])
    size = oriented_gradients.num_features(SPEC.shape)
    wide = jnp.pad(x, ((0, 0), (0, max(0, size - PIXELS))))[:, :size] / CLIP
    features = jax.vmap(lambda v: whole_factor(v, oriented_gradients.LONGEST))(wide)
    _one_step(phase, logistic.Example(features, y, jnp.ones(len(y), bool)))


RELEASES: dict[str, Callable[[jax.Array, jax.Array], Any]] = {
    "class means": functools.partial(_of_mixture, "class means"),
    "second moment": functools.partial(_of_mixture, "basis"),
    "k-means step": functools.partial(_of_mixture, "centres"),
    "moments": functools.partial(_of_mixture, "moments"),
    "classifier's step": _of_reranker,
}
