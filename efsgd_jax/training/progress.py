"""Shows the progress of a run on standard error: a bar on a terminal, plain lines in a file or a pipe."""

import sys
import time
from types import TracebackType
from typing import Self

import tqdm

# Time between two lines of progress if standard error is not a terminal.
SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Shows the number of steps taken, the current activity, and an estimate of the time that is left.

    The estimate uses only steps that were timed. Time for compilation, which ``compiling`` announces, is not counted.

    Args:
      total: number of steps in all.
      initial: number of steps that were taken before.
      shown: whether to show anything.
      name: name of the phase, printed before each line.
    """

    def __init__(self, total: int, initial: int = 0, *, shown: bool = True, name: str = ""):
        self._name = f"{name}: " if name else ""
        self._total, self._taken, self._timed, self._seconds = total, initial, 0, 0.0
        self._shown, self._bar = shown, None
        self._since = self._last_line = time.monotonic()
        self._compiling, self._summary, self._said = False, "", initial
        if shown and sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=total,
                initial=initial,
                dynamic_ncols=True,
                bar_format="{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {postfix}",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._taken != self._said:
            self._step_line()

    def compiling(self, what: str) -> None:
        """Announces a compilation. Time until ``compiled`` or ``advance`` is called is not counted as steps."""
        self._compiling = True
        self._say(f"{self._name}compiling {what}")
        self._since = time.monotonic()

    def compiled(self) -> None:
        """Ends the compilation: time from now on is counted as steps."""
        self._compiling, self._since = False, time.monotonic()

    def advance(self, steps: int) -> None:
        """Counts ``steps`` more steps as taken.

        JAX dispatches steps asynchronously: the time of a step that is still running is counted with later steps.
        """
        now = time.monotonic()
        self._taken += steps
        if not self._compiling:
            self._timed, self._seconds = self._timed + steps, self._seconds + now - self._since
        self._compiling, self._since = False, now
        if self._bar is not None:
            self._bar.set_description_str(self._name, refresh=False)
            self._bar.set_postfix_str(self._text(), refresh=False)
            self._bar.update(steps)
        elif now - self._last_line > SECONDS_BETWEEN_LINES and self._taken < self._total:
            self._step_line()

    def summary(self, text: str) -> None:
        """Sets a text, such as the latest losses, that is shown beside the number of steps."""
        self._summary = text

    def seconds_left(self) -> float | None:
        """Estimated time for the remaining steps, from the steps that were timed; None before the first of these."""
        if not self._timed:
            return None
        return (self._total - self._taken) * self._seconds / self._timed

    def _text(self) -> str:
        left = self.seconds_left()
        parts = [] if left is None or self._taken == self._total else [f"{_duration(left)} left"]
        return " | ".join(parts + [self._summary] * bool(self._summary))

    def _step_line(self) -> None:
        self._said = self._taken
        self._say(f"{self._name}step {self._taken} of {self._total}, {self._text()}".rstrip(", "))

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_description_str(f"{text} ")
        elif self._shown:
            print(text, file=sys.stderr, flush=True)
            self._last_line = time.monotonic()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def say(text: str, *, shown: bool = True) -> None:
    """Prints a line about the preparations before the first step on standard error, if ``shown``."""
    if shown:
        print(text, file=sys.stderr, flush=True)
