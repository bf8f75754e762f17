"""Games in which the unit is a region of one image: the canary is what the region holds, in place of blank pixels.

The images have four pixels in a row, and the first one is private. The network is a convolution with three taps, so
that two of its four outputs, the tokens, see the private pixel. The adversary knows everything public (which images
there are, their labels, here the weights of the tokens, and the pixels outside of the region), chooses the canary, and
sees every update: the noised sum plus the public gradient.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.audit.scores import likelihood_ratio
from efsgd_jax.privacy import DpSgdMechanism, Ledger, blank_region, blanked_grad, clipped_grad, masked_clipped_grad
from efsgd_jax.privacy.accounting import FINE
from efsgd_jax.privacy.regions import Neighbour

PyTree = Any
# (clipped sum, public gradient): what masked_clipped_grad and blanked_grad return.
Parts = tuple[Callable[..., Any], Callable[..., Any]]
Rows = tuple[jax.Array, jax.Array]

REGION = np.array([True, False, False, False])
TAPS = 3
# The weights of the tokens in the loss, and the canary's pixels: the private one, and one that is in the third tap of
# the public gradient alone, where the private pixel never is.
WEIGHTS, PRIVATE, PUBLIC = (3.0, 4.0, 1.0, 0.0), 10.0, 1000.0


def loss_of_tokens(params: jax.Array, record: PyTree, key: jax.Array) -> tuple[jax.Array, None]:
    """The weighted sum of the tokens: ``record`` is an image ``[4]`` and the weights of its tokens ``[4]``."""
    del key
    image, weights = record
    patches = jnp.stack([jnp.pad(image, 1)[i : i + len(image)] for i in range(TAPS)], axis=1)
    return weights @ (patches @ params), None


def by_region(clip: float, neighbour: Neighbour) -> Parts:
    """The parts as the library has them."""
    return masked_clipped_grad(loss_of_tokens, REGION, clip, neighbour=neighbour), blanked_grad(loss_of_tokens, REGION)


def by_token(clip: float, neighbour: Neighbour) -> Parts:
    """The fault: the loss of the region's tokens is clipped and noised, that of the others is not, although they see
    the region.
    """
    del neighbour

    def of_tokens(which: np.ndarray) -> Callable[..., tuple[jax.Array, None]]:
        return lambda params, record, key: loss_of_tokens(params, (record[0], jnp.where(which, record[1], 0)), key)

    def others(params: jax.Array, batch: PyTree, keys: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        def mean(params: jax.Array) -> jax.Array:
            each = jax.vmap(of_tokens(~REGION), (None, 0, 0))(params, batch, keys)[0]
            return jnp.sum(jnp.where(mask, each, 0)) / jnp.maximum(jnp.sum(mask), 1)

        return jax.value_and_grad(mean)(params)

    return clipped_grad(of_tokens(REGION), clip), others


def all_records(rows: jax.Array, mask: jax.Array, count: int) -> Rows:
    """The rows of the public gradient, and which of them count: all records, whatever was sampled."""
    del rows, mask
    return jnp.arange(count), jnp.ones(count, bool)


def sampled_records(rows: jax.Array, mask: jax.Array, count: int) -> Rows:
    """The fault: the public gradient is of the secret Poisson batch, so that it shows who was sampled."""
    del count
    return rows, mask


def of_the_sampled(seen: jax.Array, change: jax.Array, q: float) -> jax.Array:
    """The log likelihood ratio given that the canary was sampled; 0 where the third tap shows that it was not.

    Without the fault nothing shows it, and ``likelihood_ratio`` with q is the better score.
    """
    absent = jnp.abs(seen[:, 2:]) > PUBLIC / 2
    return likelihood_ratio(jnp.where(absent, change / 2, seen), change, 1.0)


@dataclasses.dataclass(frozen=True)
class RegionGame:
    """One mechanism, and an adversary who chooses what the region of record 0 holds.

    Attributes:
      name: name of the game, for the table.
      mechanism: the mechanism under attack, without feedback.
      steps: T, the number of steps.
      neighbour: what the region holds in runs without the canary: blank pixels, or the opposite of the canary.
      tight: whether the claimed epsilon is exact for this adversary.
      parts: function of the clip norm that returns the two parts of the update; ``by_region`` unless a fault is
        injected.
      public_rows: function of the sampled rows, their mask and N that returns the rows of the public gradient.
      score: function that returns the attack's score; see ``games.Game``.
    """

    name: str
    mechanism: DpSgdMechanism
    steps: int = 1
    neighbour: Neighbour = "blanked"
    tight: bool = False
    parts: Callable[[float, Neighbour], Parts] = by_region
    public_rows: Callable[[jax.Array, jax.Array, int], Rows] = all_records
    score: Callable[[jax.Array, jax.Array, float], jax.Array] = likelihood_ratio

    def claimed(self, delta: float) -> float:
        """The upper bound under attack: the accountant's epsilon for the region of one image."""
        return Ledger(self.mechanism, math.inf, delta, self.steps).spent(self.steps, grid=FINE)

    def trial(self, present: jax.Array, key: jax.Array) -> jax.Array:
        """The attack's score of one run, with the canary in the region of record 0 if ``present``."""
        m, halves = self.mechanism, 2 if self.neighbour == "arbitrary" else 1
        sensitivity = float(m.l2_norm_clip)  # type: ignore[arg-type]
        private, public = self.parts(sensitivity / halves, self.neighbour)
        absent = -PRIVATE if self.neighbour == "arbitrary" else 0.0
        records = _records(m.dataset_size, jnp.where(present, PRIVATE, absent))
        blank = blank_region(records, jnp.asarray(REGION))
        noise_key, sampling_key = jax.random.split(key)
        params, transform = jnp.zeros(TAPS), m.transform(noise_key)
        everyone = jnp.arange(m.dataset_size), jnp.ones(m.dataset_size, bool)

        def public_sum(records: PyTree, rows: jax.Array, mask: jax.Array) -> jax.Array:
            _, mean = public(params, jax.tree.map(lambda x: x[rows], records), _keys(rows), mask)
            return mean * jnp.sum(mask)

        # What the adversary knows: the public part, and what the neighbour's region would add.
        known = public_sum(blank, *everyone)
        direction = jnp.array([WEIGHTS[1], WEIGHTS[0], 0.0]) / math.hypot(*WEIGHTS[:2])
        change = direction / m.noise_multiplier

        def one_step(state: Any, step: jax.Array) -> tuple[Any, jax.Array]:
            rows, mask = m.sample(jax.random.fold_in(sampling_key, step))
            kept = None if self.neighbour == "arbitrary" else mask  # that of a full batch, which is all of it
            total = private(params, jax.tree.map(lambda x: x[rows], records), _keys(rows), kept)
            mean, new = transform.update(total, state, params)
            update = mean * m.expected_batch_size + public_sum(records, *self.public_rows(rows, mask, m.dataset_size))
            return new, (update - known) / (m.noise_multiplier * sensitivity) + change * (halves - 1) / 2

        _, seen = jax.lax.scan(one_step, transform.init(params), jnp.arange(self.steps))
        return self.score(seen, jnp.broadcast_to(change, seen.shape), m.sampling_probability)


def _records(count: int, private: jax.Array) -> PyTree:
    """The canary, whose private pixel is given, and black images; all have the same weights."""
    images = jnp.zeros((count, len(REGION))).at[0, -1].set(PUBLIC).at[0, 0].set(private)
    return images, jnp.broadcast_to(jnp.array(WEIGHTS), images.shape)


def _keys(rows: jax.Array) -> jax.Array:
    """Keys of the losses, which use none."""
    return jax.random.split(jax.random.key(0), len(rows))


def region_games() -> list[RegionGame]:
    """The games on the correct code, in which no violation may be found."""
    full = DpSgdMechanism(dataset_size=4, sampling_probability=1.0, capacity=4, noise_multiplier=1.0)
    sampled = DpSgdMechanism(dataset_size=20, sampling_probability=0.05, capacity=20, noise_multiplier=1.0)
    return [
        RegionGame("a region, full batch, T = 1", full, tight=True),
        RegionGame("a region of arbitrary content, full batch, T = 1", full, neighbour="arbitrary", tight=True),
        RegionGame("a region, Poisson, T = 20", sampled, steps=20),
    ]
