"""Runs on disk. A run is a folder: training writes facts into it, everything else reads them.

    runs/<run id>/  config.json  about.json  events.jsonl  worker.log  worker.lock  request.json  checkpoints/  initial/

One writer, the worker, appends to ``events.jsonl`` while it holds the lock on ``worker.lock``; the kernel frees that
lock when the worker dies. Status is derived from the lock and the log, never stored. Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from gptlab.config import RunConfig
from gptlab.events import Event, encode
from gptlab.home import runs_folder, write_atomically
from gptlab.locks import is_held
from gptlab.log import RunLog, read_events
from gptlab.parsing import parse_config

Request = Literal["pause", "resume", "step", "stop", "discard", "save"]
Status = Literal["running", "paused", "finished", "stopped", "discarded", "failed", "interrupted", "damaged"]
LIVE: tuple[Status, ...] = ("running", "paused")  # while a worker holds the run
LONGEST_NAME = 120
_CHECKPOINT = re.compile(r"step-(\d{6,})\Z")


@dataclass(frozen=True)
class About:
    """What people say of a run. It belongs to them: training never reads it."""

    name: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    parent: str | None = None


@dataclass(frozen=True)
class CheckpointInfo:
    """A saved model: ``step`` counts the optimiser steps completed; ``resumable`` ones hold the optimiser too."""

    name: str
    step: int
    path: Path
    bytes: int
    resumable: bool

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"


def check_name(name: str) -> str:
    """A run's name as it may be shown: one line of at most 120 characters. ValueError otherwise."""
    name = " ".join(name.split())
    if len(name) > LONGEST_NAME:
        raise ValueError(f"The name has {len(name)} characters, more than {LONGEST_NAME}: shorten it.")
    if any(not character.isprintable() for character in name):
        raise ValueError("The name holds characters that cannot be shown: leave them out.")
    return name


@lru_cache(256)
def _parsed(text: bytes) -> RunConfig:
    """A page asks for the same configuration several times a second."""
    return parse_config(text)


class Run:
    """One run's folder. Making this object reads nothing; each question reads what it needs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self._log: RunLog | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # What it is

    @property
    def config(self) -> RunConfig:
        """The configuration, fixed when the run was made. ValueError where the file is missing or torn."""
        try:
            return _parsed((self.path / "config.json").read_bytes())
        except OSError as error:
            raise ValueError(
                f"Run {self.id} has no readable config.json ({error.strerror}): it cannot go on."
            ) from error
        except ValueError as error:
            raise ValueError(f"The config.json of run {self.id} is damaged: {error}") from error

    @property
    def config_error(self) -> str | None:
        """Why the configuration cannot be read, or None."""
        try:
            _ = self.config
        except ValueError as error:
            return str(error)
        return None

    @property
    def about(self) -> About:
        """Name, tags, notes and parent; defaults where the file is missing or torn."""
        try:
            raw = json.loads((self.path / "about.json").read_text(encoding="utf-8"))
            parent = raw.get("parent")
            return About(
                name=str(raw.get("name", "")),
                tags=tuple(str(tag) for tag in raw.get("tags", ())),
                notes=str(raw.get("notes", "")),
                parent=None if parent is None else str(parent),
            )
        except (OSError, ValueError, AttributeError, TypeError):
            return About()

    @property
    def name(self) -> str:
        """What people call the run; its id where they gave no name."""
        return self.about.name or self.id

    @property
    def created(self) -> float:
        """Unix seconds: from the id, or the folder's own time where the id tells none."""
        try:
            return time.mktime(time.strptime(self.id[:15], "%Y%m%d-%H%M%S"))
        except ValueError:
            try:
                return self.path.stat().st_mtime
            except OSError:
                return 0.0

    def update_about(self, **changes: object) -> About:
        """Replace some of name, tags, notes, parent."""
        about = replace(self.about, **changes)  # type: ignore[arg-type]
        about = replace(about, name=check_name(about.name))
        write_atomically(self.path / "about.json", json.dumps(asdict(about), ensure_ascii=False, indent=2) + "\n")
        return about

    def rename(self, name: str) -> About:
        return self.update_about(name=name)

    # What happened

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    def append(self, event: Event) -> None:
        """Add one fact. Only the holder of the lock calls this. A torn last line is ended first."""
        with open(self.events_path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(encode(event).encode("utf-8") + b"\n")

    def read(self, offset: int = 0) -> tuple[list[Event], int]:
        """The events whose whole lines stand after byte ``offset``, and the offset to go on from."""
        return read_events(self.events_path, offset)

    def log(self) -> RunLog:
        """The log as it stands now: later calls on this object read only what is new."""
        if self._log is None:
            self._log = RunLog(self.events_path)
        self._log.refresh()
        return self._log.now()

    def events(self) -> list[Event]:
        """Every event that still holds: rows that a resume made void are left out."""
        return self.log().events

    # How it stands

    def is_locked(self) -> bool:
        """Whether a worker holds this run now."""
        return is_held(self.path / "worker.lock")

    def status(self) -> Status:
        """running or paused while a worker holds the lock; else how the run last ended; else interrupted."""
        locked = self.is_locked()  # before the log: a worker writes its last line, then lets go
        log = self.log()
        if locked:
            return "paused" if log.phase == "paused" else "running"
        if log.ended is not None and log.ended.reason in get_args(Status):
            return log.ended.reason  # type: ignore[return-value]
        return "damaged" if log.unreadable or self.config_error else "interrupted"

    @property
    def is_live(self) -> bool:
        return self.is_locked()

    def worker_pid(self) -> int | None:
        """The process that holds the lock, as it wrote itself down; None where none does."""
        if not self.is_locked():
            return None
        try:
            return int((self.path / "worker.lock").read_text())
        except (OSError, ValueError):
            return None

    # What is asked of it

    def request(self, kind: Request) -> None:
        """Leave a wish for the worker, which honours it between two steps. The newest wish counts."""
        if kind not in get_args(Request):
            raise ValueError(f"There is no request {kind!r}: use one of {', '.join(get_args(Request))}.")
        write_atomically(self.path / "request.json", json.dumps({"request": kind, "time": time.time()}))

    def pending_request(self) -> str | None:
        """The wish that the worker has not honoured yet."""
        return _request_in(self.path / "request.json")

    def take_request(self) -> str | None:
        """The pending wish, removed: the worker calls this between two steps."""
        path, taken = self.path / "request.json", self.path / "request.taken"
        try:
            os.replace(path, taken)  # so that a wish written meanwhile is not lost
        except OSError:
            return None
        kind = _request_in(taken)
        taken.unlink(missing_ok=True)
        return kind

    # What it keeps

    @property
    def initial_weights(self) -> Path | None:
        """The weights that a fork begins with; None for a run that begins with random ones."""
        path = self.path / "initial" / "weights.safetensors"
        return path if path.is_file() else None

    def checkpoints(self) -> list[CheckpointInfo]:
        """Saved models, fewest steps first, ``best`` last."""
        found = []
        folder = self.path / "checkpoints"
        for path in folder.iterdir() if folder.is_dir() else ():
            match = _CHECKPOINT.match(path.name)
            weights = path / "weights.safetensors"
            if (match or path.name == "best") and weights.is_file():
                size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
                step = int(match[1]) if match else self._best_step()
                found.append(CheckpointInfo(path.name, step, path, size, (path / "resume.pt").is_file()))
        return sorted(found, key=lambda item: (item.name == "best", item.step))

    def _best_step(self) -> int:
        best = [saved for saved in self.log().saved if saved.checkpoint == "best"]
        return best[-1].step + 1 if best else 0

    def checkpoint(self, name: str) -> CheckpointInfo:
        """The checkpoint called ``best``, ``last``, ``step-90`` or ``step-000090``. ValueError: it is not there."""
        kept = self.checkpoints()
        if not kept:
            raise ValueError(
                f"Run {self.id} has no checkpoint yet: wait for the end of its first epoch, or train again."
            )
        wanted = name.strip()
        number = re.fullmatch(r"step-(\d+)", wanted)
        if wanted == "last":
            steps = [item for item in kept if item.name != "best"]
            return (steps or kept)[-1]
        for item in kept:
            if item.name == wanted or (number and item.name != "best" and item.step == int(number[1])):
                return item
        raise ValueError(
            f"Run {self.id} has no checkpoint {name!r}: use last or one of {', '.join(item.name for item in kept)}."
        )


def _request_in(path: Path) -> str | None:
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["request"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kind if kind in get_args(Request) else None


class RunStore:
    """The runs below one folder. Nothing is written before the first run is created."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else runs_folder()

    def create(
        self, config: RunConfig, *, name: str = "", tags: Iterable[str] = (), notes: str = "", parent: str | None = None
    ) -> Run:
        """A new run's folder, with its configuration and what people say of it. It does not start it."""
        about = About(check_name(name), tuple(tags), notes, parent)
        while True:
            run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
            try:
                (self.root / run_id).mkdir(parents=True)
                break
            except FileExistsError:
                continue
        run = Run(self.root / run_id)
        write_atomically(run.path / "config.json", config.to_json())
        run.update_about(**asdict(about))
        return run

    def list(self) -> list[Run]:
        """Every run, newest first, damaged ones included. Folders that are no runs are left out."""
        if not self.root.is_dir():
            return []
        folders = [
            path
            for path in self.root.iterdir()
            if path.is_dir()
            and not path.name.startswith(".")
            and any((path / file).exists() for file in ("config.json", "events.jsonl", "about.json"))
        ]
        return sorted(map(Run, folders), key=_age_key, reverse=True)

    def get(self, run_id: str) -> Run:
        """The run of that id, or of the only id that begins so, or ``last``. ValueError: there is none."""
        runs = self.list()
        if run_id == "last" and runs:
            return runs[0]
        matches = [run for run in runs if run.id == run_id] or [
            run for run in runs if run_id and (run.id.startswith(run_id) or run.about.name == run_id)
        ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ValueError(
                f"{run_id!r} names {len(matches)} runs: give one of {', '.join(run.id for run in matches)}."
            )
        known = ", ".join(run.id for run in runs[:5]) or "none yet"
        raise ValueError(f"There is no run {run_id!r} in {self.root}: the newest are {known}.")

    def delete(self, run_id: str) -> None:
        """Remove a run and everything in it. ValueError: there is none, or a worker is training it."""
        run = next((run for run in self.list() if run.id == run_id), None)
        if run is None:
            raise ValueError(f"There is no run {run_id!r} in {self.root}.")
        if run.is_locked():
            raise ValueError(f"Run {run.name} is training: stop it first, then delete it.")
        doomed = run.path.with_name(f".deleted-{run.id}-{secrets.token_hex(2)}")
        run.path.rename(doomed)  # gone from every list at once, even if removing the files takes long or fails
        shutil.rmtree(doomed, ignore_errors=True)


def _age_key(run: Run) -> tuple[float, int, str]:
    """Orders runs by creation; the configuration's own time tells apart those of the same second."""
    try:
        written = (run.path / "config.json").stat().st_mtime_ns
    except OSError:
        written = 0
    return run.created, written, run.id


def live_runs(store: RunStore) -> list[Run]:
    """The runs that a worker holds now."""
    return [run for run in store.list() if run.is_locked()]
