"""A distinguishing game for a mixture's whole fit: every noisy sum is seen, each depends on those before.

The adversary knows all examples, whether or not the canary is among them, and all of the code. Given what was released,
it replays the fit with the canary and without, which tells what each sum was before the noise in either world: the
likelihood ratio of all releases together is the best score there is.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

from efsgd_jax.methods import mixture_fit
from efsgd_jax.methods.mixture_fit import FitOptions
from efsgd_jax.privacy.accounting import FINE, epsilon, gaussian_event

PyTree = Any
# The canary's vector, in clip norms.
LENGTH = 1000.0


class _Release(NamedTuple):
    clean: PyTree  # sums and squares before the noise
    noisy: PyTree
    std: float


@dataclasses.dataclass(frozen=True)
class StatisticsGame:
    """Two classes along one line; the canary, far out on it, is the only member of its class.

    Attributes:
      name: for the table.
      noise_multiplier: of the whole fit.
      components: of each class; two bring k-means into it.
      others: examples that are not the canary.
      tight: whether the bound should come close to the claim.
    """

    name: str
    noise_multiplier: float = 1.0
    components: int = 2
    others: int = 40
    tight: bool = False

    def claimed(self, delta: float) -> float:
        """The upper bound under attack: one Gaussian release."""
        return epsilon(gaussian_event(self.noise_multiplier), delta, grid=FINE)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The attack's score of one run."""
        line = jnp.eye(4)[0]
        x = jnp.concatenate([LENGTH * line[None], jnp.where(jnp.arange(self.others) % 2, 1.0, -1.0)[:, None] * line])
        y = jnp.array([1] + [0] * self.others)
        worlds = ((x[1:], y[1:]), (x, y))
        options = FitOptions(
            components=self.components, directions=2, mean_clip=1.0, deviation_clip=1.0, cluster_steps=2
        )

        def releases(data: tuple[jax.Array, jax.Array], given: list[PyTree] | None) -> list[_Release]:
            with _taped(given) as tape:
                mixture_fit.fit_mixture(key, *data, 2, self.noise_multiplier, options)
            return tape

        without, together = ([r.noisy for r in releases(data, None)] for data in worlds)
        seen = jax.tree.map(functools.partial(jnp.where, present), together, without)
        score = jnp.zeros(())
        for absent, with_canary, noisy in zip(*(releases(data, seen) for data in worlds), seen, strict=True):
            change = (_white(with_canary.clean) - _white(absent.clean)) / absent.std
            score += jnp.vdot(change, (_white(noisy) - _white(absent.clean)) / absent.std - change / 2)
        return score


@contextlib.contextmanager
def _taped(given: list[PyTree] | None) -> Iterator[list[_Release]]:
    """Records the releases of a fit, which are replaced by ``given`` ones if there are any."""
    sound = mixture_fit.gaussian_release
    tape: list[_Release] = []

    def release(key: jax.Array, sums: PyTree, sensitivity: float, sigma: float, *, squares: PyTree = ()) -> PyTree:
        noisy = sound(key, sums, sensitivity, sigma, squares=squares) if given is None else given[len(tape)]
        tape.append(_Release((sums, squares), noisy, sensitivity * sigma))
        return noisy

    with mock.patch.object(mixture_fit, "gaussian_release", release):
        yield tape


def _white(sums_and_squares: PyTree) -> jax.Array:
    """All of a release in coordinates in which the noise is independent and of one std."""
    sums, squares = sums_and_squares
    parts = [jnp.ravel(x) for x in jax.tree.leaves(sums)]
    for square in jax.tree.leaves(squares):
        d = square.shape[-1]
        rows, columns = jnp.triu_indices(d)
        parts.append(jnp.ravel(square[..., rows, columns] * jnp.where(rows == columns, 1.0, jnp.sqrt(2.0))))
    return jnp.concatenate(parts)


def statistics_games() -> list[StatisticsGame]:
    """With k-means and without."""
    return [
        StatisticsGame("private mixture, one component", components=1),
        StatisticsGame("private mixture, k-means", components=2),
    ]
