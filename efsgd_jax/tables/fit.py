"""Trains a Born machine on the rows of a table by DP-SGD (arXiv 2508.06251)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from efsgd_jax.errors import UserError
from efsgd_jax.privacy import DpSgdMechanism, calibrate_mechanism, clipped_grad, fresh_key, sample_capacity
from efsgd_jax.synthesizers.born_machine.chain import Chain, first_chain, log_probability, with_unit_norms
from efsgd_jax.tables.columns import Columns
from efsgd_jax.tables.table import Table

# The last learning rate, relative to the first one.
LAST_RATE = 0.05


@dataclasses.dataclass(frozen=True)
class Options:
    """The chain and its training; public choices.

    Attributes:
      bond: side of the matrices.
      steps: number of private steps.
      expected_batch_size: expected number of rows in a batch; at most N.
      l2_norm_clip: clip norm of the gradient of a row's negative log-likelihood. Where it clips most rows, frequent
        values become more frequent than they are.
      learning_rate: Adam's first learning rate; it decays to a twentieth along a cosine.
      ema_decay: decay of the moving average of the matrices that is released.
    """

    bond: int = 8
    steps: int = 150
    expected_batch_size: int = 2048
    l2_norm_clip: float = 16.0
    learning_rate: float = 2e-2
    ema_decay: float = 0.95


def fit_table(
    rows: Mapping[str, Sequence[Any]],
    columns: Mapping[str, Any] | Columns,
    *,
    epsilon: float,
    delta: float = 1e-5,
    options: Options | None = None,
) -> Table:
    """A private model of the rows of a table.

    Args:
      rows: for each column, N entries. A row is one record: one person has one row.
      columns: name -> list of the values that the column may have, or ``{"edges": [0, 18, 65]}`` for intervals of
        numbers. They are public, so that they must not be read off the rows.
      epsilon: the epsilon to spend, above 0.
      delta: the delta of the guarantee, below 1/N.
      options: the chain and its training.

    Raises:
      UserError: columns or entries as in ``Columns``, no row, or an epsilon that cannot be reached.

    Formal guarantees:
      See ``Table``. Each step is one Gaussian release of a clipped sum over a Poisson sample, by
      ``DpSgdMechanism.transform``, composed by PLD. The value of an entry is a function of that entry. Images and
      table of the same persons are two releases: their epsilons and deltas add up.

    Examples:
      >>> rows = {"smokes": ["no", "yes"] * 500, "class": ["healthy", "ill"] * 500}
      >>> declared = {"smokes": ["no", "yes"], "class": ["healthy", "ill"]}
      >>> table = fit_table(rows, declared, epsilon=3.0)
      >>> found = table.sample(1000)
      >>> agree = sum((a == "yes") == (b == "ill") for a, b in zip(found["smokes"], found["class"]))
      >>> agree > 900
      True
    """
    options = options or Options()
    _check(options)
    columns = columns if isinstance(columns, Columns) else Columns.declared(columns)
    indices = jnp.asarray(columns.encode(rows))
    if not len(indices):
        raise UserError("the table has no row; there is nothing to learn from")
    n = len(indices)
    if not delta < 1 / n:
        raise UserError(f"delta is {delta:g}; it is below 1/N, which is {1 / n:.2g} for {n:,} rows")
    q = min(1.0, options.expected_batch_size / n)
    mechanism = DpSgdMechanism(
        dataset_size=n,
        sampling_probability=q,
        capacity=sample_capacity(n, q),
        noise_multiplier=1.0,
        l2_norm_clip=options.l2_norm_clip,
    )
    mechanism = calibrate_mechanism(mechanism, options.steps, epsilon, delta)
    chain = _trained(indices, columns, mechanism, options)
    return Table(columns, chain, mechanism.epsilon(options.steps, delta), delta, n)


def _check(options: Options) -> None:
    """Raises ``UserError`` for options that are out of range, which would be noticed late or not at all."""
    o = options
    rules = [
        ("bond", o.bond, isinstance(o.bond, int) and o.bond >= 1, "a whole number of at least 1"),
        ("expected_batch_size", o.expected_batch_size, o.expected_batch_size > 0, "above 0"),
        ("l2_norm_clip", o.l2_norm_clip, 0 < o.l2_norm_clip < math.inf, "above 0 and finite"),
        ("learning_rate", o.learning_rate, 0 < o.learning_rate < math.inf, "above 0 and finite"),
        ("ema_decay", o.ema_decay, 0 <= o.ema_decay < 1, "at least 0 and below 1"),
    ]
    for name, value, right, must in rules:
        if not right:
            raise UserError(f"{name} is {value!r}; it is {must}")


def _trained(indices: jax.Array, columns: Columns, mechanism: DpSgdMechanism, options: Options) -> Chain:
    """The average of the matrices after all steps."""
    allowed = _allowed(columns)
    schedule = optax.cosine_decay_schedule(options.learning_rate, options.steps, LAST_RATE)
    transform = optax.chain(mechanism.transform(fresh_key()), optax.adam(schedule))

    def valid(chain: Chain) -> Chain:
        """Without the values that a column lacks, which get probability 0."""
        return with_unit_norms(chain._replace(cores=chain.cores * allowed))

    def loss(chain: Chain, row: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        return -log_probability(chain, row, jnp.array(0)), None

    gradient = clipped_grad(loss, mechanism.l2_norm_clip, method="vmap", microbatch_size=64)

    @jax.jit
    def step(chain: Chain, ema: Chain, state: Any, key: jax.Array, i: jax.Array) -> tuple[Chain, Chain, Any]:
        sample_key, example_key = jax.random.split(jax.random.fold_in(key, i))
        chosen, mask = mechanism.sample(sample_key)
        total = gradient(chain, indices[chosen], jax.random.split(example_key, len(chosen)), mask)
        updates, state = transform.update(total, state, chain)
        chain = valid(optax.apply_updates(chain, updates))
        decay = jnp.minimum(options.ema_decay, (1.0 + i) / (10.0 + i))
        return chain, optax.incremental_update(chain, ema, 1.0 - decay), state

    most = allowed.shape[2]
    chain = valid(first_chain(fresh_key(), 1, 1, len(columns.names), most, options.bond))
    ema, state, key = chain, transform.init(chain), fresh_key()
    for i in range(options.steps):
        chain, ema, state = step(chain, ema, state, key, jnp.asarray(i))
    if not all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(ema)):
        raise UserError("training gave NaN; nothing was released. Lower learning_rate, or raise epsilon")
    return ema


def _allowed(columns: Columns) -> jax.Array:
    """1 for the values that a column has, 0 for others: float32 ``[1, D, Q, 1, 1]``."""
    most = max(map(len, columns.values))
    found = np.array([[1.0 if i < len(v) else 0.0 for i in range(most)] for v in columns.values], np.float32)
    return jnp.asarray(found[None, :, :, None, None])
