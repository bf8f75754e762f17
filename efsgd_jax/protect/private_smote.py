"""SMOTE with a guarantee: rows between centres that were released with noise, in the place of private rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.files import write_text
from efsgd_jax.formatting import format_epsilon
from efsgd_jax.privacy import FullBatchMechanism, VectorSum, calibrate_mechanism, fresh_key
from efsgd_jax.protect.rows import Rows

# Part of the budget for the mean of all rows, about which the centres are sought.
MEAN_SHARE = 0.1
# What a row adds to its centre's count, relative to the clip norm of its difference.
COUNT_LENGTH = 0.25


class Centres(NamedTuple):
    """Centres of the rows of each label; all of it may be published.

    Attributes:
      cells: float64 ``[K, M, D]``, M centres for each label, in [0, 1].
      weights: float64 ``[K, M]``, the estimated share of each centre among all rows; they sum to 1.
      epsilon: what was spent, by PLD.
      delta: its delta.
      dataset_size: the number N of rows, which is public.
    """

    cells: np.ndarray
    weights: np.ndarray
    epsilon: float
    delta: float
    dataset_size: int

    def sample(self, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """``n`` rows ``[n, D]`` and their labels ``[n]``: each is at a random place between two centres of its label.

        Formal guarantees:
          Post-processing of the centres; it costs nothing.
        """
        rng = np.random.default_rng(seed)
        labels, count = self.weights.shape
        first = rng.choice(labels * count, size=n, p=self.weights.reshape(-1))
        label = first // count
        within = self.weights / np.maximum(self.weights.sum(axis=1, keepdims=True), 1e-12)
        second = (rng.random(n)[:, None] > np.cumsum(within, axis=1)[label]).sum(axis=1).clip(0, count - 1)
        a, b = self.cells[label, first % count], self.cells[label, second]
        return a + rng.random((n, 1)) * (b - a), label


class _Record(NamedTuple):
    x: jax.Array
    label: jax.Array


def fit_centres(
    rows: Rows, *, epsilon: float, delta: float = 1e-5, centres: int = 2, steps: int = 2, l2_norm_clip: float = 2.0
) -> Centres:
    """Centres by noisy steps of k-means, for each label.

    Args:
      rows: the private rows; columns, ranges and the values of labels are public.
      epsilon: the epsilon to spend, above 0.
      delta: its delta, below 1/N.
      centres: number M of centres of each label, at least 1.
      steps: number of steps of k-means, at least 1; each has its part of the budget.
      l2_norm_clip: clip norm of the difference of a row, in [0, 1], from the mean of all rows.

    Raises:
      UserError: an option is out of range.

    Formal guarantees:
      ``epsilon``, ``delta`` for one row that is replaced by a blank one, which contributes nothing; N is public. The
      mean and each step are exact sums with Gaussian noise (``FullBatchMechanism``, docs/privacy/arithmetic.md), whose
      shares of 1/sigma^2 add up to 1. The nearest centre is a function of one row and of what was released before.

    Examples:
      >>> from efsgd_jax.protect.rows import read_rows
      >>> columns = {"age": ["30", "60"] * 500, "ill": ["no", "yes"] * 500}
      >>> rows = read_rows(columns, {"age": {"range": [0, 120]}, "ill": ["no", "yes"]})
      >>> cells, labels = fit_centres(rows, epsilon=3.0).sample(1000)
      >>> bool(cells[labels == 0].mean() < 0.3 < cells[labels == 1].mean())
      True
    """
    n, kinds = len(rows.cells), len(rows.label_values)
    _check(n, delta, centres, steps, l2_norm_clip)
    sigma = calibrate_mechanism(FullBatchMechanism(n, 0.0), 1, epsilon, delta).noise_multiplier
    records = _Record(jnp.asarray(rows.cells, jnp.float32), jnp.asarray(rows.labels, jnp.int32))
    whole = VectorSum(lambda r: r.x - 0.5, 0.5 * rows.cells.shape[1] ** 0.5, 0.0)
    total, _ = _released(FullBatchMechanism(n, sigma, MEAN_SHARE, 1), records, whole, None, 1)
    middle = jnp.clip(0.5 + total[0] / n, 0.0, 1.0)

    # Random centres near the mean cut the rows of a label into parts by planes through it.
    at = middle + 0.1 * jax.random.normal(fresh_key(), (kinds, centres, rows.cells.shape[1]))
    later = FullBatchMechanism(n, sigma, 1.0 - MEAN_SHARE, steps)
    counts = jnp.ones((kinds * centres,))
    for _ in range(steps):
        member = VectorSum(lambda r: r.x - middle, l2_norm_clip, COUNT_LENGTH * l2_norm_clip)
        (sums, counts), std = _released(later, records, member, at, kinds * centres)
        # A count that is mostly noise would throw its centre far out: it is moved to the mean instead.
        least = 2 * std / (COUNT_LENGTH * l2_norm_clip) + 1
        at = jnp.clip(middle + (sums / jnp.maximum(counts, least)[:, None]).reshape(at.shape), 0.0, 1.0)
    weights = np.maximum(np.asarray(counts, np.float64), 1.0).reshape(kinds, centres)
    spent = FullBatchMechanism(n, sigma).epsilon(1, delta)
    return Centres(np.asarray(at, np.float64), weights / weights.sum(), spent, delta, n)


def statement_of(found: Centres, rows: Rows) -> str:
    """What the rows of ``Centres.sample`` guarantee, in words that can be quoted."""
    private = f"({format_epsilon(found.epsilon)}, {found.delta:g})-differential privacy"
    columns = ", ".join([*rows.names, *([rows.label_name] if rows.label_name else [])])
    return (
        f"# {private}\n\n"
        f"Each row lies between two centres of its label, which were released with {private} for one row of the table "
        "that is replaced by a blank one. A person with several rows is protected less. If images or other tables of "
        "the same persons are published too, their epsilons and deltas add up.\n\n"
        f"Public, and not protected: the number of rows, {found.dataset_size:,}; the declared columns {columns}. "
        "Choices made by looking at the rows are not covered.\n"
    )


def write_private(directory: Path, found: Centres, rows: Rows) -> None:
    """Writes ``PRIVACY.md`` into ``directory``."""
    write_text(directory / "PRIVACY.md", statement_of(found, rows))


def _released(
    mechanism: FullBatchMechanism, records: _Record, term: VectorSum, centres: jax.Array | None, groups: int
) -> tuple[Any, float]:
    """One release of ``term`` for each nearest centre of the record's label, and the std of its noise."""

    def nearest(r: _Record) -> jax.Array:
        if centres is None:
            return jnp.zeros((), jnp.int32)
        distances = jnp.sum(jnp.square(centres[r.label] - r.x), axis=1)
        return (r.label * centres.shape[1] + jnp.argmin(distances)).astype(jnp.int32)

    @jax.jit
    def step(records: _Record, key: jax.Array) -> Any:
        access = mechanism.open(records, key, jnp.zeros((), jnp.int32), released={})
        (values,), std = access.release([term], group=nearest, num_groups=groups)
        return values, jnp.float32(std)

    values, std = step(records, fresh_key())
    return values, float(std)


def _check(n: int, delta: float, centres: int, steps: int, l2_norm_clip: float) -> None:
    rules: Mapping[str, tuple[float, bool, str]] = {
        "delta": (delta, 0 < delta < 1 / n, f"above 0 and below 1/N, which is {1 / n:.2g} for {n:,} rows"),
        "centres": (centres, centres >= 1, "at least 1"),
        "steps": (steps, steps >= 1, "at least 1"),
        "l2_norm_clip": (l2_norm_clip, 0 < l2_norm_clip < float("inf"), "above 0 and finite"),
    }
    for name, (value, right, must) in rules.items():
        if not right:
            raise UserError(f"{name} is {value:g}; it is {must}")
