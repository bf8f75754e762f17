"""Handles SIGTERM, so that a training process can save a checkpoint before it is killed.

Schedulers such as Slurm and Kubernetes send SIGTERM to the processes of a job before they take its machine away
(preemption).
"""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[int], bool]]:
    """Yields ``asked(step)``: whether the run has to end after this step, because SIGTERM was received.

    In a run of several processes, SIGTERM to any one of them is enough. All processes must ask about the same steps, in
    the same order. JAX gets the number of the question in the place of the step: it chooses the number after the
    largest one that any process has asked about, and a program that takes several steps at a time could pass over a
    step. The answer to the chosen question is True in all processes.

    In a run of one process, the handler is installed for the duration of the context, and the previous one is restored
    afterwards. In a thread other than the main one, which cannot install handlers, the answer is always False.
    """
    if jax.process_count() > 1:  # ``jax.distributed.initialize`` has installed a handler in each process
        questions = itertools.count()
        yield lambda step: multihost_utils.reached_preemption_sync_point(next(questions))
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
