"""Each release of the mixture's and the reranker's phases, made once of given vectors, with earlier releases fixed."""

import jax
import jax.numpy as jnp

from efsgd_jax.data import ImageSpec
from efsgd_jax.privacy import FullBatchMechanism, PlannedPhase
from efsgd_jax.privacy.one_shot import NoiseSupply
from efsgd_jax.privacy.sum_terms import whole_factor
from efsgd_jax.synthesizers.gaussian_mixture.fit import ClassMeans, Vector, fit_phases
from efsgd_jax.synthesizers.gaussian_mixture.options import Hyperparameters, budget_shares
from efsgd_jax.synthesizers.gaussian_mixture.space import Basis
from efsgd_jax.synthesizers.reranking import logistic, random_features
from efsgd_jax.synthesizers.reranking.oriented_gradients import LONGEST

MIXTURE = {"means": "class means", "basis": "basis", "clusters": "centres", "moments": "moments"}


class NoNoise(NoiseSupply):
    """Zeros, as many as are asked for."""

    def __init__(self, key=None, size=0):
        pass

    def take(self, shape):
        return jnp.zeros(shape, jnp.int32)


def plan_of(hp, n, sigma=1.0):
    shares = budget_shares(hp)
    return {k: PlannedPhase(k, FullBatchMechanism(n, sigma, share, t), t) for k, (share, t) in shares.items()}


def whole_plan(hp, n):
    """Each phase as if it had the whole budget, for noise of one sensitivity."""
    return {k: PlannedPhase(k, FullBatchMechanism(n, 1.0), 1) for k in budget_shares(hp)}


def one_step(phase, records, released):
    access = phase.plan.mechanism.open(records, jax.random.key(0), jnp.int32(0), released=released)
    return phase.step(phase.init(jax.random.key(1), released), access, jax.random.key(2))[0]


def release_of_mixture(name, x, y, classes, centres, **options):
    """One step of a phase on vectors ``[N, D]``; all directions are there, with codes that are the vectors' own."""
    side, d, m = round(x.shape[1] ** 0.5), x.shape[1], centres.shape[1]
    assert side**2 == d
    hp = Hyperparameters(components=m, directions=d, cluster_steps=1, **options)
    # With these variances the unit of a code is 1: unit = 1.3 sqrt(d s) sqrt(s) for s = sqrt(variance).
    variance = (1 / (1.3 * d**0.5)) ** 2
    released = {
        "class means": ClassMeans(jnp.zeros((classes, d)), jnp.ones(classes), jnp.float32(0.0)),
        "basis": Basis(jnp.eye(d), jnp.full(d, variance), jnp.float32(variance)),
        "centres": centres,
    }
    phases = {p.name: p for p in fit_phases(ImageSpec(side, 1, classes), hp, whole_plan(hp, len(x)))}
    one_step(phases[MIXTURE[name]], Vector(x, y), released)


def release_of_reranker(features, y, spec, **options):
    """One step from zero weights on features ``[N, F]`` of the length that they have there, or shorter."""
    hp = Hyperparameters(reranker_steps=1, **options)
    phase = logistic.reranker_phase(spec, hp, whole_plan(hp, len(y))["reranker"])
    whole = jax.vmap(lambda row: whole_factor(row, LONGEST))(features)
    one_step(phase, logistic.Example(whole, y, jnp.ones(len(y), bool)), {})


def release_of_random_features(features, y, spec):
    """The step on features ``[N, 2 m]`` of norm 1, or shorter."""
    hp = Hyperparameters(reranker="random_features", random_frequencies=features.shape[1] // 2)
    phase = random_features.reranker_phase(spec, hp, whole_plan(hp, len(y))["reranker"])
    whole = jax.vmap(lambda row: whole_factor(row, 1.0))(features)
    one_step(phase, random_features.Example(whole, y), {})
