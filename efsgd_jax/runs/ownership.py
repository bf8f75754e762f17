"""The lock by which only one process at a time works in a run's directory."""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import filelock

from efsgd_jax.errors import UserError
from efsgd_jax.files import read_json, write_json
from efsgd_jax.runs.workdir import Workdir


@contextlib.contextmanager
def sole_owner(directory: Workdir) -> Iterator[None]:
    """Holds the lock of a run's directory, for training or for charging a query.

    Without it, two processes could spend budget at the same time, each unaware of the other. The operating system
    releases the lock when the process ends, even if it is killed.

    Raises:
      UserError: another process, or another call in this process, holds the lock; or the lock file cannot be used.
    """
    try:
        # Each call opens the lock file anew, and the operating system's lock belongs to the open file, not to the
        # process. Therefore a second call is refused while the first holds the lock, even in the same process and
        # thread. With ``timeout=0`` it fails at once instead of waiting. ``thread_local=False`` allows another thread
        # than the one that acquired the lock to release it.
        lock = filelock.FileLock(directory.lock, timeout=0, mode=0o600, thread_local=False)
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(
            f"another process is at work in {directory.root}; wait for it, or use another --workdir"
        ) from error
    except OSError as error:
        raise UserError(f"cannot lock {directory.lock} ({error.strerror or error}); use another --workdir") from error
    try:
        write_json(directory.process, {"pid": os.getpid(), "host": socket.gethostname()}, private=True)
        yield
    finally:
        directory.process.unlink(missing_ok=True)
        lock.release()


def process_of(directory: Workdir) -> dict[str, Any] | None:
    """The process that holds the lock of a run's directory, as ``pid`` and ``host``; None if there is none."""
    lock = filelock.FileLock(directory.lock, timeout=0, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        return dict(read_json(directory.process))
    lock.release()
    return None
