"""A released table: the chain, its columns, and what was spent on it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efsgd_jax.errors import UserError
from efsgd_jax.files import atomic
from efsgd_jax.privacy.keys import fresh_key
from efsgd_jax.synthesizers.born_machine.chain import Chain, draw, log_probability
from efsgd_jax.tables.columns import Columns

# Rows that are drawn at once.
AT_ONCE = 10_000


class Table(NamedTuple):
    """A private model of a table's rows; all of it may be published.

    Attributes:
      columns: names and values of the columns.
      chain: the matrices of the Born machine, of one class.
      epsilon: epsilon by PLD of the steps that were taken.
      delta: its delta.
      dataset_size: number N of rows, which is public.

    Formal guarantees:
      (epsilon, delta)-differential privacy for one row that is replaced by a blank one, which contributes nothing; N
      and the columns are public. Everything computed from a ``Table`` inherits this. Under the arithmetic of
      ``DpSgdMechanism`` (docs/privacy/arithmetic.md).
    """

    columns: Columns
    chain: Chain
    epsilon: float
    delta: float
    dataset_size: int

    def sample(self, n: int, key: jax.Array | None = None) -> dict[str, list[str]]:
        """``n`` synthetic rows: for each column, a list of values.

        Args:
          n: the number of rows, at least 1.
          key: a PRNG key; None for a fresh one. It may be published.
        """
        if not isinstance(n, int) or n < 1:
            raise UserError(f"the number of rows is {n}; it is a whole number of at least 1")
        if key is not None and not isinstance(key, jax.Array):
            raise UserError(f"key is {key!r}; it is a PRNG key, such as jax.random.key({key!r}), or None")
        rows = jax.jit(jax.vmap(lambda k: draw(self.chain, k, jnp.array(0))))
        key = fresh_key() if key is None else key
        parts = [
            np.asarray(rows(jax.random.split(jax.random.fold_in(key, i), min(AT_ONCE, n - i))))
            for i in range(0, n, AT_ONCE)
        ]
        return self.columns.decode(np.concatenate(parts))

    def log_likelihood(self, rows: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """The exact log-probability of each row in nats, float32 ``[N]``.

        Formal guarantees:
          None for the rows that are given: if they are private, so is the result.
        """
        one = jax.jit(jax.vmap(lambda x: log_probability(self.chain, x, jnp.array(0))))
        return np.asarray(one(jnp.asarray(self.columns.encode(rows))))

    def write(self, path: str | Path) -> Path:
        """Writes the table to a JSON file, which may be published."""
        content = {
            "columns": self.columns.as_declared(),
            "epsilon": self.epsilon,
            "delta": self.delta,
            "dataset_size": self.dataset_size,
            "chain": {name: np.asarray(x).tolist() for name, x in self.chain._asdict().items()},
        }
        path = Path(path)
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: str | Path) -> "Table":
        """Reads what ``write`` wrote.

        Raises:
          UserError: the file is missing or is not of this form.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            chain = Chain(**{name: jnp.asarray(x, jnp.float32) for name, x in content["chain"].items()})
            columns = Columns.declared(content["columns"])
            if chain.cores.ndim != 5 or chain.cores.shape[1] != len(columns.names):
                raise ValueError("the matrices are of other columns")
            return cls(columns, chain, content["epsilon"], content["delta"], content["dataset_size"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"cannot read a table from {path} ({error}); give a file that `efsgd table` wrote"
            ) from error
