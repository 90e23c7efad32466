"""Taking times fairly: contestants in turn, in one process, so that whatever the machine does meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Times:
    """Seconds of one contestant's rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{_readable(self.median)} ({_readable(min(self.seconds))} to {_readable(max(self.seconds))})"


clock = time.perf_counter  # on a machine with other work: time.process_time, with one thread


def interleaved(contestants: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, Times]:
    """Call every contestant once a round, ``rounds`` times; the first ``warm_up`` rounds are not counted."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warm_up + rounds):
        for name, run in contestants.items():
            began = clock()
            run()
            if number >= warm_up:
                taken[name].append(clock() - began)
    return {name: Times(tuple(seconds)) for name, seconds in taken.items()}


def ratio(slow: Times, fast: Times) -> float:
    """How many times faster ``fast`` is: the median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def _readable(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
