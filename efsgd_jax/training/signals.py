"""Handles SIGTERM, which a machine sends before it is preempted, so that the run can save a checkpoint."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[int], bool]]:
    """Yields ``asked(step)``: whether the run has to end after this step. The answer is the same in all processes.

    In a thread other than the main one, which cannot handle signals, the answer is always False.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield lambda step: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
