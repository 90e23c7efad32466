"""The numbers of a run, ready to be drawn: positions on an axis, smoothing, thinning, speed.

Works on the rows of a ``RunLog``; knows nothing of charts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gptlab.events import Evaluated
from gptlab.log import RunLog
from gptlab.step_rows import SECONDS, StepRows

Floats = npt.NDArray[np.float64]
Axis = Literal["epoch", "step", "tokens", "time", "flops"]
MOST_POINTS = 1000  # of one line: a page shows about as many pixels of it
AT_ONCE = 4096  # points that are looked at together: drawing a long run takes no more memory than a short one


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


def positions(log: RunLog, axis: Axis, extent: Extent, rows: Sequence[Evaluated] | None = None) -> list[float]:
    """Where each evaluation stands on ``axis``: fractional epochs, steps, tokens seen, seconds of work, operations.

    Operations are counted from the tokens seen; where it is not known how many one takes, NaN. ``rows``: only of these.
    """
    rows = log.evaluations if rows is None else rows
    if axis == "flops":
        return [row.tokens_seen * (extent.flops_per_token or math.nan) for row in rows]
    if axis == "tokens":
        return [float(row.tokens_seen) for row in rows]
    if axis == "time":
        return [log.seconds.get(id(row), math.nan) for row in rows]
    if axis == "epoch" and extent.steps_per_epoch:
        return [(row.step + 1) / extent.steps_per_epoch for row in rows]
    return [float(row.step + 1) for row in rows]


def step_positions(steps: StepRows, axis: Axis, extent: Extent, places: Sequence[int]) -> Floats:
    """``positions`` of the steps at these places of a log, as an array [places]."""
    if axis == "time":
        return steps.pick(SECONDS, places)
    if axis == "flops":
        return steps.pick("tokens_seen", places) * (extent.flops_per_token or math.nan)
    if axis == "tokens":
        return steps.pick("tokens_seen", places)
    made = steps.pick("step", places) + 1
    return made / extent.steps_per_epoch if axis == "epoch" and extent.steps_per_epoch else made


def epoch_marks(log: RunLog, axis: Axis, extent: Extent, most: int = 400) -> list[tuple[float, int]]:
    """Where on ``axis`` each sampled epoch ended, ``(x, epoch)``; of very many epochs so many, evenly."""
    samples = list({sample.epoch: sample for sample in log.samples}.values())
    if len(samples) > most:
        samples = [samples[round(k * (len(samples) - 1) / (most - 1))] for k in range(most)]
    found = []
    for sample in samples:
        place = log.steps.place_of(sample.step) if sample.epoch else None
        x = 0.0 if place is None else float(step_positions(log.steps, axis, extent, [place])[0])
        found.append((x, sample.epoch))
    return found


def smooth(values: Iterable[float], weight: float) -> list[float]:
    """Exponential moving average, debiased so that its beginning is not pulled to zero; NaN is passed over."""
    return _Smoother(weight).more(values)


class _Smoother:
    """``smooth``, of values that come in parts."""

    def __init__(self, weight: float) -> None:
        self.weight, self.total, self.mass = weight, 0.0, 0.0

    def more(self, values: Iterable[float]) -> list[float]:
        weight, total, mass, found = self.weight, self.total, self.mass, []
        for value in values:
            if math.isfinite(value):
                total = weight * total + (1 - weight) * value
                mass = weight * mass + (1 - weight)
            found.append(total / mass if mass else math.nan)
        self.total, self.mass = total, mass
        return found


def thin(part: Callable[[int, int], Floats], n: int, most: int = MOST_POINTS) -> tuple[list[int], list[float]]:
    """At most ``most`` points of ``n`` that keep every spike: the lowest and the highest of ``most // 2`` stretches.

    ``part(first, end)``: these of the values, asked for in order and never all at once. Returns the places that are
    kept, in order, and the values there.
    """
    if n <= most:
        return list(range(n)), part(0, n).tolist()
    bounds = np.arange(most // 2) * n // max(1, most // 2 - 1)  # the last stretch is empty: the ends take its place
    together = max(1, AT_ONCE * len(bounds) // n)
    kept: dict[int, float] = {}
    for place in range(0, len(bounds) - 1, together):
        edges = bounds[place : place + together + 1]
        first, edges = int(edges[0]), edges - edges[0]
        values = part(first, first + int(edges[-1]))
        known = np.isfinite(values)
        chosen = {0} if not first else set()
        for spike, missing in ((np.minimum, np.inf), (np.maximum, -np.inf)):
            filled = np.where(known, values, missing)
            peaks = spike.reduceat(filled, edges[:-1])
            hits = np.flatnonzero(filled == np.repeat(peaks, np.diff(edges)))
            earliest = np.searchsorted(hits, edges[:-1])  # of several equal ones the first stands for its stretch
            chosen.update(hits[earliest].tolist())
        if first + len(values) == n:
            chosen.add(len(values) - 1)
        kept.update((first + at, float(values[at])) for at in sorted(chosen))
    return list(kept), list(kept.values())


def thin_steps(
    steps: StepRows, name: str, axis: Axis, extent: Extent, *, smoothing: float = 0.0
) -> tuple[list[float], list[float]]:
    """One column of a log's steps, smoothed if wanted: positions and values of the points that ``thin`` keeps."""
    smoother = _Smoother(smoothing)

    def part(first: int, end: int) -> Floats:
        values = steps.column(name, first, end)
        return np.array(smoother.more(values.tolist())) if smoothing else values

    places, kept = thin(part, len(steps), MOST_POINTS)
    return step_positions(steps, axis, extent, places).tolist(), kept


def thin_evaluations(
    log: RunLog, rows: Sequence[Evaluated], name: str, axis: Axis, extent: Extent, most: int = MOST_POINTS
) -> tuple[list[float], list[float]]:
    """One number of these evaluations of a log: positions and values of the points that ``thin`` keeps."""
    places, kept = thin(lambda first, end: np.array([getattr(row, name) for row in rows[first:end]]), len(rows), most)
    return positions(log, axis, extent, [rows[place] for place in places]), kept


def seconds_per_step(log: RunLog, window: int = 50) -> float:
    """Seconds that one of the last steps took, evaluations, samples and saving included; NaN before the second one."""
    recent = log.steps.column(SECONDS, max(log.steps_before_start, len(log.steps) - window - 1))
    return float(recent[-1] - recent[0]) / (len(recent) - 1) if len(recent) > 1 else math.nan
