"""The numbers of a run, ready to be drawn: positions on an axis, smoothing, thinning, speed.

Works on the rows of a ``RunLog``; knows nothing of charts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gptlab.events import Evaluated, Event, Resumed, Started, Stepped
from gptlab.log import RunLog, seconds_of_work

Axis = Literal["epoch", "step", "tokens", "time", "flops"]
Row = Stepped | Evaluated
MOST_POINTS = 2000


@dataclass(frozen=True)
class Extent:
    """How far a run is meant to go. Zero: not known."""

    total_steps: int = 0
    steps_per_epoch: float = 0.0
    tokens_per_step: float = 0.0
    flops_per_token: float = 0.0  # floating-point operations of training on one token

    @property
    def epochs(self) -> float:
        return self.total_steps / self.steps_per_epoch if self.steps_per_epoch else 0.0

    @property
    def tokens(self) -> float:
        return self.total_steps * self.tokens_per_step


def extent_of(log: RunLog, num_epochs: int, max_steps: int | None = None) -> Extent:
    """The extent of a run, from what it said at its start and from the steps that it made."""
    total = log.started.total_steps if log.started else 0
    steps = log.steps
    per_epoch = float(log.started.steps_per_epoch if log.started else 0)
    if not per_epoch and max_steps is None and num_epochs:
        per_epoch = total / num_epochs
    if not per_epoch and steps:
        second = next((row for row in steps if row.epoch > 1), None)
        per_epoch = float(second.step) if second else max(steps[-1].step + 1, total / max(1, num_epochs))
    tokens = steps[-1].tokens_seen / (steps[-1].step + 1) if steps else 0.0
    return Extent(total, per_epoch, tokens)


def trained_seconds(events: Iterable[Event]) -> dict[int, float]:
    """For each row (by ``id``) the seconds of work before it: pauses and absences are not counted."""
    return {id(event): seconds for event, seconds in seconds_of_work(events) if isinstance(event, (Stepped, Evaluated))}


def positions(rows: Sequence[Row], axis: Axis, extent: Extent, seconds: dict[int, float]) -> list[float]:
    """Where each row stands on ``axis``: fractional epochs, steps made, tokens seen, seconds of work, operations.

    Operations are counted from the tokens seen; where it is not known how many one takes, NaN.
    """
    if axis == "flops":
        return [row.tokens_seen * (extent.flops_per_token or math.nan) for row in rows]
    if axis == "tokens":
        return [float(row.tokens_seen) for row in rows]
    if axis == "time":
        return [seconds.get(id(row), math.nan) for row in rows]
    if axis == "epoch" and extent.steps_per_epoch:
        return [(row.step + 1) / extent.steps_per_epoch for row in rows]
    return [float(row.step + 1) for row in rows]


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, debiased so that its beginning is not pulled to zero; NaN is passed over."""
    total, mass, found = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total = weight * total + (1 - weight) * value
            mass = weight * mass + (1 - weight)
        found.append(total / mass if mass else math.nan)
    return found


def thin(xs: Sequence[float], ys: Sequence[float], most: int = MOST_POINTS) -> tuple[list[float], list[float]]:
    """At most ``most`` points that keep every spike: the lowest and the highest of each of ``most // 2`` stretches."""
    n = len(ys)
    if n <= most:
        return list(xs), list(ys)
    kept: set[int] = {0, n - 1}
    stretches = max(1, (most - 2) // 2)
    for index in range(stretches):
        span = range(index * n // stretches, (index + 1) * n // stretches)
        known = [place for place in span if math.isfinite(ys[place])] or list(span)
        kept.add(min(known, key=ys.__getitem__))
        kept.add(max(known, key=ys.__getitem__))
    order = sorted(kept)
    return [xs[place] for place in order], [ys[place] for place in order]


def seconds_per_step(log: RunLog, window: int = 50) -> float:
    """Seconds that one of the last steps took, evaluations, samples and saving included; NaN before the second one."""
    recent: list[Event] = []
    steps = 0
    for event in reversed(log.events):
        recent.append(event)
        steps += isinstance(event, Stepped)
        if steps > window or isinstance(event, (Started, Resumed)):
            break
    recent.reverse()
    seconds = list(trained_seconds(recent).values())
    return (max(seconds) - min(seconds)) / (steps - 1) if steps > 1 else math.nan
