"""What there is to say about a run in one line of a table, and where two configurations differ. Imports no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gptlab.config import RunConfig
from gptlab.runs import Run


@dataclass(frozen=True)
class RunSummary:
    """A run's key figures; None where they are not known (yet). ``problem`` says in a sentence what is damaged."""

    id: str
    name: str
    status: str
    created: float
    tags: tuple[str, ...] = ()
    notes: str = ""
    steps: int = 0
    total_steps: int | None = None
    epoch: int = 0
    num_epochs: int | None = None
    best_val_loss: float | None = None
    best_step: int | None = None
    last_train_loss: float | None = None
    n_parameters: int | None = None
    device: str | None = None
    seconds: float = 0.0
    bytes: int = 0
    problem: str | None = None


def summarise(run: Run) -> RunSummary:
    """The run's line. Never raises: what cannot be read is left out and said in ``problem``."""
    about, size = run.about, folder_bytes(run.path)
    told = RunSummary(run.id, about.name or run.id, "damaged", run.created, about.tags, about.notes, bytes=size)
    status, log = run.status(), run.log()
    problem, num_epochs = None, None
    try:
        num_epochs = run.config.train.num_epochs
    except ValueError as error:
        problem = str(error)
    if log.unreadable:
        problem = f"The event log of run {run.id} cannot be read: {log.unreadable}."
    best, steps, evaluations = log.best, log.steps[-1:], log.evaluations[-1:]
    losses = [row.train_loss for row in evaluations] + [row.loss for row in steps]
    return replace(
        told,
        status=status,
        steps=log.steps_completed,
        total_steps=log.started.total_steps if log.started else None,
        epoch=max([row.epoch for row in steps] + [row.epoch for row in evaluations], default=0),
        num_epochs=num_epochs,
        best_val_loss=best.val_loss if best else None,
        best_step=best.step + 1 if best else None,
        last_train_loss=next((loss for loss in losses if math.isfinite(loss)), None),
        n_parameters=log.started.n_parameters if log.started else None,
        device=log.device,
        seconds=log.seconds_trained(),
        problem=problem,
    )


def folder_bytes(path: Path) -> int:
    """Bytes of all files below ``path``; what vanishes meanwhile, or may not be read, counts nothing."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total


def fingerprint(run: Run) -> tuple[object, ...]:
    """Changes whenever the run's summary may have changed: with its files, and with the coming or going of a worker."""
    stamps: list[object] = []
    for name in ("events.jsonl", "about.json", "config.json", "checkpoints"):
        try:
            stat = (run.path / name).stat()
            stamps.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            stamps.append(None)
    return (*stamps, run.is_locked())


def config_differences(configs: Sequence[RunConfig]) -> list[tuple[str, list[Any]]]:
    """``("section.field", [its value in each configuration])`` for the fields that are not the same in all."""
    raws = [config.model_dump() for config in configs]
    found = []
    for section, fields in (raws[0] if raws else {}).items():
        for name in fields:
            values = [raw[section][name] for raw in raws]
            if any(value != values[0] for value in values):
                found.append((f"{section}.{name}", values))
    return found
