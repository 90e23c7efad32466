"""Steps whose loss and gradient norm are still on the device, read together a few times a second; and their speed.

A GPU is told what to do next while it still works; asking it for a number makes everybody wait until it is done. One
question for many steps costs as much as one for a single step.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

READ_BACK_SECONDS = 0.25
WARM_UP_STEPS = 2  # not counted in the speed: caches are cold, kernels are being chosen
SPEED_WINDOW = 20  # steps that the speed is the mean of


@dataclass(frozen=True)
class Made:
    """A step that was made. ``numbers``: loss and norm, or still on the device: parts of the loss, then the norm."""

    step: int
    epoch: int
    n_tokens: int
    tokens_before: int  # tokens seen before the step
    learning_rate: float
    numbers: tuple[float, float] | Tensor


@dataclass(frozen=True)
class Read:
    """A step's numbers, how long it took and when it was done (Unix): its share, of steps that were read together."""

    made: Made
    loss: float
    norm: float
    seconds: float
    time: float


class ReadBack:
    """What was made since the last reading. ``begin`` before a step, ``add`` after it."""

    def __init__(self) -> None:
        self.waiting: list[Made] = []
        self.began = 0.0

    def begin(self) -> None:
        if not self.waiting:
            self.began = time.perf_counter()

    def add(self, made: Made) -> None:
        self.waiting.append(made)

    def is_due(self) -> bool:
        """Whether it is time to read: at once where nothing is to be waited for."""
        known = any(not isinstance(made.numbers, Tensor) for made in self.waiting)
        return known or time.perf_counter() - self.began >= READ_BACK_SECONDS

    def read(self) -> Iterator[Read]:
        """Every waiting step, in order."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        numbers = list(_numbers(waiting))
        seconds, now = time.perf_counter() - self.began, time.time()
        for place, (made, (loss, norm)) in enumerate(zip(waiting, numbers, strict=True), start=1):
            share = seconds / len(waiting)
            yield Read(made, loss, norm, share, now - (len(waiting) - place) * share)


def _numbers(waiting: list[Made]) -> Iterator[tuple[float, float]]:
    """Loss and norm of each step; tensors are brought over in one piece."""
    on_device = [made.numbers for made in waiting if isinstance(made.numbers, Tensor)]
    brought = iter(torch.cat(on_device).tolist() if on_device else ())
    for made in waiting:
        if isinstance(made.numbers, Tensor):
            *losses, norm = (next(brought) for _ in range(len(made.numbers)))
            yield sum(losses), norm
        else:
            yield made.numbers


class Speed:
    """Tokens per second over the last steps."""

    def __init__(self) -> None:
        self.recent: deque[tuple[int, float]] = deque(maxlen=SPEED_WINDOW)
        self.n_steps = 0

    def add(self, n_tokens: int, seconds: float) -> None:
        """Count one step."""
        self.n_steps += 1
        if self.n_steps > WARM_UP_STEPS:
            self.recent.append((n_tokens, seconds))

    def tokens_per_second(self) -> float:
        """NaN before any step counts."""
        seconds = sum(seconds for _, seconds in self.recent)
        return sum(tokens for tokens, _ in self.recent) / seconds if seconds else math.nan
