"""Reading a run's event log while it is being written.

A reader keeps its byte offset, never acts on a torn last line, skips lines that it cannot read, and at a ``resumed``
event drops the earlier rows from that step on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from threading import Lock

from gptlab.events import (
    Ended,
    Evaluated,
    Event,
    Phase,
    Probed,
    Resumed,
    Sampled,
    Saved,
    Started,
    Stepped,
    Warned,
    decode_lines,
)
from gptlab.step_rows import StepRows


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The events on the whole lines after byte ``offset``, and the offset behind the last whole line."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            raw = file.read()
    except FileNotFoundError:
        return [], 0
    whole = raw[: raw.rfind(b"\n") + 1]
    return decode_lines([line for line in whole.split(b"\n") if line.strip()]), offset + len(whole)


class RunLog:
    """A log read so far, its facts sorted by kind. ``refresh`` reads what was added since; threads may share it.

    ``now`` is what they look at: in a log that is being read on, one list may be longer than another.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = Lock()
        self._stays = False
        self._clear()

    def _clear(self) -> None:
        self.offset = 0  # bytes read so far
        self._others: list[tuple[int, Event]] = []  # all but steps, each with the number of steps before it
        self.started: Started | None = None
        self.resumed: list[Resumed] = []
        self.steps = StepRows()
        self.steps_before_start = 0  # of ``steps``: those made before the worker that was started last
        self.evaluations: list[Evaluated] = []
        self.samples: list[Sampled] = []
        self.probes: list[Probed] = []
        self.saved: list[Saved] = []
        self.warnings: list[Warned] = []
        self.ended: Ended | None = None
        self.phase: str | None = None
        self.phase_since: float = math.nan
        self.last_time = math.nan  # when the last thing happened
        self.seconds: dict[int, float] = {}  # of work before each evaluation, by its ``id``
        self._worked = _Worked()
        self.unreadable: str | None = None  # why the file cannot be read, where that is so

    def refresh(self) -> bool:
        """Read on. True: something was added. TypeError: this is a log of one moment."""
        if self._stays:
            raise TypeError("A log of one moment is not read on.")
        with self._reading:
            try:
                if self.path.stat().st_size < self.offset:
                    self._clear()  # another file stands there now
            except OSError:
                pass
            try:
                events, offset = read_events(self.path, self.offset)
            except OSError as error:
                self.unreadable = error.strerror or str(error)
                return False
            self.unreadable = None
            for event in events:
                self._take(event)
            self.offset = offset  # only now: whoever sees it finds the events, too
            return bool(events)

    def now(self) -> RunLog:
        """All of this moment, as a log that stays as it is."""
        with self._reading:
            taken = copy(self)
            taken._stays = True
            taken.steps, taken._worked = self.steps.now(), copy(self._worked)
            for name, value in vars(self).items():
                if isinstance(value, list):
                    setattr(taken, name, list(value))
        return taken

    @property
    def events(self) -> list[Event]:
        """All that still holds, in order."""
        return list(self._in_order())

    def _in_order(self) -> Iterator[Event]:
        place = 0
        for before, event in self._others:
            while place < before:
                yield self.steps[place]
                place += 1
            yield event
        yield from self.steps[place:]

    def _take(self, event: Event) -> None:
        match event:
            case Started():
                self.started = event
            case Resumed():
                self._drop_from(event.step)
                self.resumed.append(event)
                self.ended = None
            case Evaluated():
                self.evaluations.append(event)
            case Sampled():
                self.samples.append(event)
            case Probed():
                self.probes.append(event)
            case Saved():
                self.saved.append(event)
            case Warned():
                self.warnings.append(event)
            case Ended():
                self.ended = event
            case Phase():
                self.phase, self.phase_since = event.phase, event.time
        worked = self._worked.until(event)
        self.last_time = event.time
        if isinstance(event, Stepped):
            self.steps.append(event, worked)
            return
        self._others.append((len(self.steps), event))
        if isinstance(event, Evaluated):
            self.seconds[id(event)] = worked
        elif isinstance(event, (Started, Resumed)):
            self.steps_before_start = len(self.steps)

    def _drop_from(self, step: int) -> None:
        """Forget the rows of step ``step`` and later: they are made again."""
        measured = (Evaluated, Sampled, Probed, Saved)
        self.steps, kept = self.steps.before(step)
        self.evaluations = [row for row in self.evaluations if row.step < step]
        self.samples = [row for row in self.samples if row.step < step]
        self.probes = [row for row in self.probes if row.step < step]
        self.saved = [row for row in self.saved if row.step < step]
        self._others = [
            (kept[before], row) for before, row in self._others if row.step < step or not isinstance(row, measured)
        ]
        self.seconds = {id(row): self.seconds[id(row)] for row in self.evaluations}
        self._worked = _Worked()
        for row in self._in_order():
            self._worked.until(row)

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the lowest validation loss, the earliest of equals."""
        known = [row for row in self.evaluations if not math.isnan(row.val_loss)]
        return min(known, key=lambda row: row.val_loss, default=None)

    @property
    def steps_completed(self) -> int:
        return self.steps[-1].step + 1 if self.steps else 0

    @property
    def device(self) -> str | None:
        """The device it trains on, or last trained on."""
        resumed = [row.device for row in self.resumed if row.device]
        return resumed[-1] if resumed else (self.started.device if self.started else None)

    def seconds_trained(self) -> float:
        """Seconds that the worker was at work: neither paused nor away between an end, or a death, and a resume."""
        return self._worked.total


class _Worked:
    """Adds up the seconds of work, event by event."""

    def __init__(self) -> None:
        self.total, self._last, self._paused = 0.0, math.nan, False

    def until(self, event: Event) -> float:
        if not math.isnan(self._last) and not self._paused and not isinstance(event, (Resumed, Started)):
            self.total += max(0.0, event.time - self._last)
        if isinstance(event, Phase):
            self._paused = event.phase == "paused"
        elif isinstance(event, (Resumed, Started)):
            self._paused = False
        self._last = event.time
        return self.total
