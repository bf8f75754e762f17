"""Programs timed in turn, so that a slow minute of the machine slows all of them."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def cores() -> int:
    """That this process may use, which is how many threads XLA takes."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_turn(run: Mapping[str, Callable[[], Any]], rounds: int, repeats: int = 1) -> dict[str, list[float]]:
    """Milliseconds per call of each round, after one round that is not counted (it compiles, and warms caches).

    Args:
      run: what to time; a call returns when its work is done.
      rounds: in each all have a turn, and another one begins.
      repeats: calls in one turn.
    """
    times: dict[str, list[float]] = {name: [] for name in run}
    names = list(run)
    for i in range(rounds + 1):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            for _ in range(repeats):
                run[name]()
            if i > 0:
                times[name].append(1e3 * (time.perf_counter() - start) / repeats)
    return times


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Of the same round."""
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the range."""
    low, middle, high = (f"{x:.{digits}f}" for x in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def fastest(times: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    return min(names, key=lambda name: statistics.median(times[name]))


def write_record(path: str | None, record: Mapping[str, Any]) -> None:
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(record, indent=1) + "\n")
