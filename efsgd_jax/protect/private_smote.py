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
from efsgd_jax.privacy import Composition, calibrate_plan, fresh_key
from efsgd_jax.protect.rows import Rows
from efsgd_jax.protect.smote_centres import COUNT_LENGTH, Record, planned, release_centres

# Centres of a label are drawn from if its count exceeds 0 by more than this many standard deviations of its noise.
SIGNIFICANT = 2.0


class Centres(NamedTuple):
    """Centres of the rows of each label; all of it may be published.

    Attributes:
      cells: float64 ``[K, M, D]``, M centres for each label, in [0, 1].
      weights: float64 ``[K, M]``, the estimated share of each centre among all rows; they sum to 1, and are 0 for
        labels whose noisy count says that there may be no row.
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

        The rows are independent of each other, so that their order says nothing.

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


def fit_centres(
    rows: Rows, *, epsilon: float, delta: float = 1e-5, centres: int = 2, steps: int = 2, l2_norm_clip: float = 2.0
) -> Centres:
    """Centres by noisy steps of k-means, for each label.

    A declared label value without a row has centres of pure noise. A label is therefore left out if its noisy count is
    not above its noise: of such a label no row is drawn. Labels with few rows are lost too.

    Args:
      rows: the private rows; columns, ranges and the values of labels are public.
      epsilon: the epsilon to spend, above 0.
      delta: its delta, below 1/N.
      centres: number M of centres of each label, at least 1.
      steps: number of steps of k-means, at least 1; each has its part of the budget.
      l2_norm_clip: clip norm of the difference of a row, in [0, 1], from the mean of all rows.

    Raises:
      UserError: an option is out of range, or the counts of all labels are lost in the noise.

    Formal guarantees:
      ``epsilon``, ``delta`` for one row that is replaced by a blank one, which contributes nothing; N is public. The
      mean and each step are exact sums with Gaussian noise (``FullBatchMechanism``, docs/privacy/arithmetic.md), and
      epsilon is that of the composition of the phases that are opened. Which labels are left out is post-processing of
      the noisy counts.

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
    phases = calibrate_plan(planned(n, steps), epsilon, delta)
    records = Record(jnp.asarray(rows.cells, jnp.float32), jnp.asarray(rows.labels, jnp.int32))
    # Random centres near the mean cut the rows of a label into parts by planes through it.
    starts = 0.1 * jax.random.normal(fresh_key(), (kinds, centres, rows.cells.shape[1]))

    @jax.jit
    def released(records: Record, starts: jax.Array, key: jax.Array) -> Any:
        return release_centres(phases, records, starts, key, l2_norm_clip=l2_norm_clip)

    found = released(records, starts, fresh_key())
    all_phases = Composition(phases)
    spent = all_phases.epsilon(all_phases.total_steps, delta)
    counts = np.asarray(found.counts[-1], np.float64).reshape(kinds, centres)
    weights = weights_of(counts, float(found.stds[-1]) / (COUNT_LENGTH * l2_norm_clip))
    return Centres(np.asarray(found.centres, np.float64), weights, spent, delta, n)


def weights_of(counts: np.ndarray, std: float) -> np.ndarray:
    """The weights of centres from their noisy counts ``[K, M]``, whose noise has the standard deviation ``std``.

    Raises:
      UserError: no label's count is above its noise.

    Formal guarantees:
      Post-processing of the counts; it costs nothing.

    Examples:
      >>> weights_of(np.array([[30.0, 10.0], [2.0, -1.0], [40.0, -3.0]]), 1.5).tolist()
      [[0.375, 0.125], [0.0, 0.0], [0.5, 0.0]]
    """
    if len(counts) == 1:  # all rows have the only label, as is public
        weights = np.maximum(counts, 1.0)
    else:
        above = counts.sum(axis=1, keepdims=True) > SIGNIFICANT * std * counts.shape[1] ** 0.5
        weights = np.where(above, np.maximum(counts, 0.0), 0.0)
    if not weights.any():
        raise UserError(
            f"the noisy count of each of the {len(counts)} labels is lost in its noise, and nothing was written, "
            "although epsilon is spent; raise epsilon, or declare fewer labels"
        )
    return weights / weights.sum()


def statement_of(found: Centres, rows: Rows) -> str:
    """What the rows of ``Centres.sample`` guarantee, in words that can be quoted."""
    private = f"({format_epsilon(found.epsilon)}, {found.delta:g})-differential privacy"
    columns = ", ".join([*rows.names, *([rows.label_name] if rows.label_name else [])])
    return (
        f"# {private}\n\n"
        f"Each row lies between two centres of its label, which were released with {private} for one row of the table "
        "that is replaced by a blank one. A person with several rows is protected less. If images or other tables of "
        "the same persons are published too, their epsilons and deltas add up. Labels whose noisy count is not above "
        "its noise are left out.\n\n"
        f"Public, and not protected: the number of rows, {found.dataset_size:,}; the declared columns {columns}. "
        "Choices made by looking at the rows are not covered.\n"
    )


def write_private(directory: Path, found: Centres, rows: Rows) -> None:
    """Writes ``PRIVACY.md`` into ``directory``."""
    write_text(directory / "PRIVACY.md", statement_of(found, rows))


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
