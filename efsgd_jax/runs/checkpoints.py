"""Training states on disk, by orbax. They hold keys and optimiser state: private."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from efsgd_jax.errors import UserError

PyTree = Any


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)


def _to_arrays(state: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


class Checkpoints:
    """The last two states of a run, each complete or absent."""

    def __init__(self, directory: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: PyTree) -> None:
        if self._manager.latest_step() != step:
            self._manager.save(step, args=ocp.args.StandardSave(_to_arrays(state)))

    def restore(self, state: PyTree) -> tuple[int, PyTree]:
        """The latest state, shaped like ``state``; ``(0, state)`` if there is none.

        Raises:
          UserError: the checkpoint is damaged or of another shape.
        """
        step = self._manager.latest_step()
        if step is None:
            return 0, state
        try:
            arrays = self._manager.restore(step, args=ocp.args.StandardRestore(_to_arrays(state)))
        except Exception as error:  # orbax raises many kinds for a damaged directory
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"cannot read checkpoint {step} in {self._manager.directory} ({type(error).__name__}: {reason}); "
                "remove that directory to continue from the one before it"
            ) from error
        restored = jax.tree.map(lambda old, new: jax.random.wrap_key_data(new) if _is_key(old) else new, state, arrays)
        return step, restored

    def close(self) -> None:
        self._manager.close()
