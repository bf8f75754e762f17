"""Where the metrics of a run are shown: TensorBoard and Weights & Biases. Both get functions of private images."""

import os
import time
from pathlib import Path
from typing import Any, Protocol

from efsgd_jax.errors import UserError


class Tracker(Protocol):
    """Takes the metrics of a step."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes finite values by name; ``step`` is counted through all phases and grows."""

    def close(self) -> None:
        """Writes what is left."""


class TensorBoard:
    """A TensorBoard event file, written synchronously.

    tensorboardX's ``SummaryWriter`` writes in a thread. If that thread ends with an error, such as a full disk or a
    clock that was set back by a month, the run would wait for it forever.
    """

    def __init__(self, directory: Path, first_step: int):
        # Imported only here, because it imports PyTorch where that is installed, which takes two seconds.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._event, self._scalar = event_pb2.Event, summary.scalar
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = event_file_writer.EventsWriter(str(directory / "events"), f".{os.getpid()}.{first_step}")
        if first_step:  # tells TensorBoard to ignore what an earlier process wrote after this step
            started = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._writer.write_event(self._event(wall_time=time.time(), step=first_step + 1, session_log=started))

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=self._scalar(name, value)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, kept in files below ``directory`` unless the user's WANDB_MODE says ``online``.

    The losses depend on private images and no epsilon covers them, so that they are sent to no server unless the user
    has asked for it. Neither source code, nor a git state, nor what is printed is recorded.
    """

    def __init__(self, directory: Path, first_step: int):
        import wandb

        directory.mkdir(parents=True, exist_ok=True)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
        )
        name = f"{directory.parent.parent.name} from step {first_step}" if first_step else directory.parent.parent.name
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "efsgd_jax"),
                dir=directory,
                mode=mode,
                name=name,
                save_code=False,
                settings=settings,
            )
        except wandb.Error as error:
            raise UserError(f"wandb: {error}; WANDB_MODE=offline needs neither an account nor a network") from error

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS = ("tensorboard", "wandb")


def check_trackers(names: tuple[str, ...]) -> None:
    """Checks that each tracker is known and its package is installed.

    Raises:
      UserError: one is unknown or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"unknown tracker {name!r}; use some of {','.join(TRACKERS)}, or none")
    if "wandb" in names:
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise UserError("wandb is not installed; pip install 'efsgd_jax[wandb]' installs it") from error


def make_trackers(names: tuple[str, ...], directory: Path, first_step: int) -> list[Tracker]:
    """Opens the trackers.

    Args:
      names: some of ``TRACKERS``.
      directory: the directory in which each has its own.
      first_step: number of steps that were taken before; 0 for a new run.

    Raises:
      OSError: the disk is full.
      UserError: Weights & Biases cannot be reached.
    """
    makers: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
    return [makers[name](directory / name, first_step) for name in names]
