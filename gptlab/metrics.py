"""The numbers of a run, ready to be drawn: positions on an axis, smoothing, thinning, speed.

Works on the rows of a ``RunLog``; knows nothing of charts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gptlab.log import RunLog
from gptlab.step_rows import SECONDS, StepRows

Floats = npt.NDArray[np.float64]
Axis = Literal["epoch", "step", "tokens", "time", "flops"]
MOST_POINTS = 1000  # of one line: a page shows about as many pixels of it


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


def positions(log: RunLog, axis: Axis, extent: Extent) -> list[float]:
    """Where each evaluation stands on ``axis``: fractional epochs, steps, tokens seen, seconds of work, operations.

    Operations are counted from the tokens seen; where it is not known how many one takes, NaN.
    """
    rows = log.evaluations
    if axis == "flops":
        return [row.tokens_seen * (extent.flops_per_token or math.nan) for row in rows]
    if axis == "tokens":
        return [float(row.tokens_seen) for row in rows]
    if axis == "time":
        return [log.seconds.get(id(row), math.nan) for row in rows]
    if axis == "epoch" and extent.steps_per_epoch:
        return [(row.step + 1) / extent.steps_per_epoch for row in rows]
    return [float(row.step + 1) for row in rows]


def step_positions(steps: StepRows, axis: Axis, extent: Extent) -> Floats:
    """``positions`` of all steps of a log, as an array [n]."""
    if axis == "time":
        return steps.column(SECONDS)
    if axis == "flops":
        return steps.column("tokens_seen") * (extent.flops_per_token or math.nan)
    if axis == "tokens":
        return steps.column("tokens_seen")
    made = steps.column("step") + 1
    return made / extent.steps_per_epoch if axis == "epoch" and extent.steps_per_epoch else made


def epoch_marks(log: RunLog, axis: Axis, extent: Extent, most: int = 400) -> list[tuple[float, int]]:
    """Where on ``axis`` each sampled epoch ended, ``(x, epoch)``; of very many epochs so many, evenly."""
    samples = list({sample.epoch: sample for sample in log.samples}.values())
    if len(samples) > most:
        samples = [samples[round(k * (len(samples) - 1) / (most - 1))] for k in range(most)]
    steps = log.steps
    made = steps.column("step")
    across = step_positions(steps, axis, extent)
    found = []
    for sample in samples:
        place = int(np.searchsorted(made, sample.step))
        if sample.epoch == 0 or place == len(made) or made[place] != sample.step:
            found.append((0.0, sample.epoch))
        else:
            found.append((float(across[place]), sample.epoch))
    return found


def smooth(values: Iterable[float], weight: float) -> list[float]:
    """Exponential moving average, debiased so that its beginning is not pulled to zero; NaN is passed over."""
    total, mass, found = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total = weight * total + (1 - weight) * value
            mass = weight * mass + (1 - weight)
        found.append(total / mass if mass else math.nan)
    return found


def thin(
    xs: Sequence[float] | Floats, ys: Sequence[float] | Floats, most: int = MOST_POINTS
) -> tuple[list[float], list[float]]:
    """At most ``most`` points that keep every spike: the lowest and the highest of each of ``most // 2`` stretches."""
    n, across, values = len(ys), np.asarray(xs, dtype=float), np.asarray(ys, dtype=float)
    if n <= most:
        return across.tolist(), values.tolist()
    known = np.isfinite(values)
    bounds = np.arange(most // 2) * n // max(1, most // 2 - 1)  # the last stretch is empty: the ends take its place
    places = {0, n - 1}
    for spike, missing in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        filled = np.where(known, values, missing)
        peaks = spike.reduceat(filled, bounds[:-1])
        hits = np.flatnonzero(filled == np.repeat(peaks, np.diff(bounds)))
        first = np.searchsorted(hits, bounds[:-1])  # of several equal ones the earliest stands for its stretch
        places.update(hits[first].tolist())
    order = sorted(places)
    return across[order].tolist(), values[order].tolist()


def seconds_per_step(log: RunLog, window: int = 50) -> float:
    """Seconds that one of the last steps took, evaluations, samples and saving included; NaN before the second one."""
    seconds = log.steps.column(SECONDS)
    recent = seconds[max(log.steps_before_start, len(seconds) - window - 1) :]
    return float(recent[-1] - recent[0]) / (len(recent) - 1) if len(recent) > 1 else math.nan
