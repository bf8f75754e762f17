"""One process at a time owns a run's directory."""

import contextlib
from collections.abc import Iterator

import filelock

from efsgd_jax.errors import UserError
from efsgd_jax.runs.workdir import Workdir


@contextlib.contextmanager
def sole_owner(directory: Workdir) -> Iterator[None]:
    """Trains, or charges a query, alone: two at once would each miss what the other does. The system lifts the lock
    when its holder ends, however that is.

    Raises:
      UserError: another process owns the directory.
    """
    try:
        # Not of this thread only: a program that is called twice from Python has to be refused as well.
        lock = filelock.FileLock(directory.lock, timeout=0, mode=0o600, thread_local=False)
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(
            f"another process is at work in {directory.root}; wait for it, or use another --workdir"
        ) from error
    except OSError as error:
        raise UserError(f"cannot lock {directory.lock} ({error.strerror or error}); use another --workdir") from error
    try:
        yield
    finally:
        lock.release()
