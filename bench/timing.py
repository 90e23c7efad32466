"""Taking times fairly: contestants in turn, in one process, so that whatever the machine does meets all of them."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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


def in_turns(commands: Mapping[str, Sequence[str]], seconds: float = 15, **options: Any) -> dict[str, Times]:
    """The time that each command takes, where they stand still in turn: each goes on for ``seconds``, then the next.

    ``options``: for ``subprocess.Popen``. CalledProcessError where one fails; the others are then ended.
    """
    running: dict[str, subprocess.Popen] = {}
    taken, waiting = dict.fromkeys(commands, 0.0), deque(commands)
    try:
        while waiting:
            name, began = waiting.popleft(), time.perf_counter()
            if name in running:
                os.killpg(running[name].pid, signal.SIGCONT)
            else:
                running[name] = subprocess.Popen(commands[name], start_new_session=True, **options)
            try:
                code = running[name].wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(running[name].pid, signal.SIGSTOP)
                waiting.append(name)
            else:
                del running[name]
                if code:
                    raise subprocess.CalledProcessError(code, commands[name])
            taken[name] += time.perf_counter() - began
    finally:
        for process in running.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {name: Times((total,)) for name, total in taken.items()}


def ratio(slow: Times, fast: Times) -> float:
    """How many times faster ``fast`` is: the median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(slow.seconds, fast.seconds, strict=True))


def _readable(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
