"""Training states on disk, by orbax. They hold keys and optimiser state: private."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from efsgd_jax.errors import UserError
from efsgd_jax.runs.devices import plain, typed

PyTree = Any


class Checkpoints:
    """The last two states of a run, each complete or absent."""

    def __init__(self, directory: Path):
        # Of several processes one keeps the files, and the others do not wait for it here.
        alone = jax.process_count() > 1
        processes = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()} if alone else None,
            barrier_sync_key_prefix="first" if alone else None,
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, multiprocessing_options=processes, create=not alone
        )
        if alone:  # orbax does not make it then
            directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: PyTree) -> None:
        if self._manager.latest_step() != step:
            self._manager.save(step, args=ocp.args.StandardSave(jax.tree.map(plain, state)))

    def restore(self, state: PyTree) -> tuple[int, PyTree]:
        """The latest state, shaped like ``state``; ``(0, state)`` if there is none.

        Raises:
          UserError: the checkpoint is damaged or of another shape.
        """
        step = self._manager.latest_step()
        if step is None:
            return 0, state
        try:
            arrays = self._manager.restore(step, args=ocp.args.StandardRestore(jax.tree.map(plain, state)))
        except Exception as error:  # orbax raises many kinds for a damaged directory
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"cannot read checkpoint {step} in {self._manager.directory} ({type(error).__name__}: {reason}); "
                "remove that directory to continue from the one before it"
            ) from error
        return step, jax.tree.map(lambda old, new: typed(jnp.asarray(new), old), state, arrays)

    def close(self) -> None:
        self._manager.close()
