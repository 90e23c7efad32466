"""Runs to come: configurations that a detached runner trains one after another, one runner for each device.

    queue/  queue.json  queue.lock  runner-<device>.lock  runner-<device>.log

The queue is a file, so it outlives dashboards and restarts. Whoever changes it holds ``queue.lock`` meanwhile. An entry
waits until it has a run, is under way while it has one, and is over once its ``outcome`` is written.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from gptlab import launcher
from gptlab.config import RunConfig
from gptlab.grid import Point
from gptlab.home import data_home, write_atomically
from gptlab.locks import hold, is_held
from gptlab.parsing import parse_config
from gptlab.runs import check_name

MOST_WAITING = 1000


@dataclass(frozen=True)
class Entry:
    """One configuration of the queue. ``device`` is the one that its runner trains on; ``run`` the run once there is
    one; ``outcome`` how that ended, or ``refused`` where none could be made, and ``message`` why.
    """

    id: str
    name: str
    config: dict[str, Any]
    device: str
    tags: tuple[str, ...] = ()
    added: float = 0.0
    run: str = ""
    starts: int = 0
    outcome: str = ""
    message: str = ""

    @property
    def waits(self) -> bool:
        return not self.run and not self.outcome

    @property
    def under_way(self) -> bool:
        return bool(self.run) and not self.outcome

    @property
    def is_over(self) -> bool:
        return bool(self.outcome)

    def parsed(self) -> RunConfig:
        """Its configuration. ValueError where it is no longer possible."""
        return parse_config(self.config)


@dataclass(frozen=True)
class State:
    """The queue as it stands: all entries in their order, and whether it is paused (no further entry begins)."""

    entries: tuple[Entry, ...] = ()
    paused: bool = False

    def open_on(self, device: str) -> list[Entry]:
        """What a runner of that device has to do: the entry under way first, then those that wait."""
        todo = [entry for entry in self.entries if entry.device == device and not entry.is_over]
        return sorted(todo, key=lambda entry: not entry.under_way)

    @property
    def waiting(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.waits]


class Queue:
    """The queue in one data folder. Making this object reads nothing."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = Path(folder) if folder is not None else data_home() / "queue"

    @property
    def path(self) -> Path:
        return self.folder / "queue.json"

    def read(self) -> State:
        """How it stands now. ValueError where the file is damaged: nothing is done until it is repaired or removed."""
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            return State(tuple(map(_entry, raw["entries"])), bool(raw["paused"]))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"The queue cannot be read ({error}): repair or remove {self.path}.") from error

    @contextmanager
    def _changing(self) -> Iterator[list[State]]:
        """The state in a list of one, to be replaced there; nobody else changes the queue meanwhile."""
        lock = hold(self.folder / "queue.lock", patience=10)
        if lock is None:
            raise ValueError(f"The queue is being changed by another process: try again, or end it ({self.folder}).")
        try:
            cell = [self.read()]
            before = cell[0]
            yield cell
            if cell[0] != before:
                raw = {"paused": cell[0].paused, "entries": [asdict(entry) for entry in cell[0].entries]}
                write_atomically(self.path, json.dumps(raw, ensure_ascii=False, indent=1) + "\n")
        finally:
            os.close(lock)

    # What people do with it

    def add(self, points: Sequence[Point], *, name: str = "", tags: Iterable[str] = ()) -> list[Entry]:
        """Append configurations, their texts fixed by hash and their devices by name as they are now.

        ValueError: a text or a device that is not there, or too many entries; then none is added.
        """
        from gptlab.corpus import open_corpus
        from gptlab.device import pick_device

        texts: dict[Any, str] = {}
        added = []
        for point in points:
            config = point.config
            source = config.data.corpus
            if source not in texts:
                texts[source] = open_corpus(source).reference
            device = str(pick_device(config.train.device))
            config = config.with_fields(data={"corpus": texts[source]})
            added.append(
                Entry(
                    id=secrets.token_hex(4), name=check_name(point.named(name)), config=config.model_dump(mode="json"),
                    device=device, tags=tuple(tags), added=time.time(),
                )
            )  # fmt: skip
        with self._changing() as cell:
            count = len(cell[0].waiting) + len(added)
            if count > MOST_WAITING:
                raise ValueError(f"{count:,} entries would wait, more than {MOST_WAITING:,}: remove some first.")
            cell[0] = replace(cell[0], entries=(*cell[0].entries, *added))
        return added

    def remove(self, ids: Iterable[str]) -> None:
        """Take entries out. One that is under way stays: stop its run instead."""
        doomed = set(ids)
        with self._changing() as cell:
            kept = tuple(entry for entry in cell[0].entries if entry.id not in doomed or entry.under_way)
            cell[0] = replace(cell[0], entries=kept)

    def clear(self, *, waiting: bool = True) -> None:
        """Take out what is over and, with ``waiting``, what waits."""
        state = self.read()
        self.remove(entry.id for entry in state.entries if entry.is_over or (waiting and entry.waits))

    def move(self, ids: Iterable[str], by: int) -> None:
        """Move waiting entries by so many places among those that wait; the ends of the queue stop them."""
        chosen = set(ids)
        with self._changing() as cell:
            order = list(cell[0].waiting)
            places = [place for place, entry in enumerate(order) if entry.id in chosen]
            blocked = -1 if by < 0 else len(order)
            for place in places if by < 0 else reversed(places):
                target = max(blocked + 1, place + by) if by < 0 else min(blocked - 1, place + by)
                order.insert(target, order.pop(place))
                blocked = target
            in_order = iter(order)
            entries = tuple(next(in_order) if entry.waits else entry for entry in cell[0].entries)
            cell[0] = replace(cell[0], entries=entries)

    def pause(self, paused: bool = True) -> None:
        """Begin no further entry (the run under way goes on), or begin again."""
        with self._changing() as cell:
            cell[0] = replace(cell[0], paused=paused)

    # What the runner does with it

    def update(self, entry_id: str, **changes: object) -> Entry | None:
        """Write down what became of an entry; the entry as it is then, or None where it was removed."""
        with self._changing() as cell:
            now = tuple(
                replace(entry, **changes) if entry.id == entry_id else entry  # type: ignore[arg-type]
                for entry in cell[0].entries
            )
            cell[0] = replace(cell[0], entries=now)
        return next((entry for entry in now if entry.id == entry_id), None)

    def take(self, device: str, lock: int) -> Entry | None:
        """The entry that a runner of ``device``, holding ``lock``, has to see to; None, and the lock is let go.

        Both under the queue's lock: whoever adds an entry afterwards finds the runner's lock free and starts another.
        """
        with self._changing() as cell:
            todo = cell[0].open_on(device)
            if todo and (todo[0].under_way or not cell[0].paused):
                return todo[0]
            os.close(lock)
            return None

    # Runners

    def runner_lock(self, device: str) -> Path:
        return self.folder / f"runner-{device.replace(':', '-')}.lock"

    def has_runner(self, device: str) -> bool:
        """Whether a runner of that device is there now."""
        return is_held(self.runner_lock(device))

    def start_runners(self, runs: Path | None = None) -> list[str]:
        """Start a detached runner for each device that has something to do and none; the devices it was done for.

        ``runs``: the folder of the runs, where it is not the data folder's own. ValueError: the queue is damaged.
        """
        state, started = self.read(), []
        for device in dict.fromkeys(entry.device for entry in state.entries if not entry.is_over):
            todo = state.open_on(device)
            if (state.paused and not todo[0].under_way) or self.has_runner(device):
                continue
            lock = hold(self.runner_lock(device), patience=0.2)
            if lock is None:
                continue
            arguments = ["-m", "gptlab.runner", str(self.folder.absolute()), device]
            try:
                log = self.runner_lock(device).with_suffix(".log")
                launcher.detach(arguments + ([str(runs)] if runs else []), lock, log, name=f"runner-{device}")
            finally:
                os.close(lock)
            started.append(device)
        return started


def _entry(raw: dict[str, Any]) -> Entry:
    known = {item.name for item in fields(Entry)}
    values = {name: value for name, value in raw.items() if name in known}
    return Entry(**{**values, "tags": tuple(values.get("tags", ()))})
