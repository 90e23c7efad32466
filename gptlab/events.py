"""What happened in a run, as small frozen facts, and their one-line JSON form.

A run's ``events.jsonl`` holds one fact a line, in the order in which they happened. ``time`` is Unix seconds. ``step``
is the index, from 0, of the last optimiser step made when the fact happened (0 before any); only ``Resumed.step`` is
the *next* step to make. Epochs count from 1; the sample before the first step has epoch 0. A number that is not
finite is written as null and read back as NaN. Unknown fields and unknown events are ignored, so that logs of newer
versions still open.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time as clock
from dataclasses import dataclass, field
from typing import Any

NAN = float("nan")
PHASES = ("loading", "compiling", "training", "evaluating", "sampling", "saving", "paused")
END_REASONS = ("finished", "stopped", "discarded", "failed")


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact: the step it belongs to and the moment (Unix seconds) it happened."""

    step: int = 0
    time: float = field(default_factory=clock.time)


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Training begins. ``n_parameters`` counts trainable weights, ``total_steps`` the optimiser steps to come."""

    run: str = ""
    device: str
    n_parameters: int
    total_steps: int
    threads: int
    precision: str = "fp32"
    steps_per_epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class Phase(Event):
    """The worker now does something else: one of ``PHASES``."""

    phase: str


@dataclass(frozen=True, kw_only=True)
class Stepped(Event):
    """One optimiser step: mean loss of its batches (nats a token), the rate used, the gradient norm before clipping."""

    epoch: int
    tokens_seen: int
    loss: float = NAN
    learning_rate: float = NAN
    grad_norm: float = NAN
    tokens_per_second: float = NAN


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """Losses (nats a token) over the first ``eval_iter`` batches of each part, dropout off. NaN: that part is empty."""

    epoch: int
    tokens_seen: int
    train_loss: float = NAN
    val_loss: float = NAN


@dataclass(frozen=True, kw_only=True)
class Sampled(Event):
    """What the model wrote. ``token_ids`` and ``text`` include the prompt; a prompt token has probability None."""

    epoch: int
    prompt: str
    token_ids: tuple[int, ...]
    text: str
    probabilities: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probed(Event):
    """How surprising each token of a watched passage is, in nats, dropout off.

    ``part`` is training or validation, ``start`` the passage's first token in it. ``token_ids`` stand only in the first
    such fact that a process writes of a passage. ``losses`` holds one number for each token but the first, separated by
    spaces: text, so that a log with thousands of them is read quickly. ``seconds`` is what the look has cost.
    """

    epoch: int
    part: str
    start: int = 0
    losses: str = ""
    seconds: float = NAN
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Saved(Event):
    """A checkpoint is on disk, whole. ``checkpoint`` is its folder's name (``step-000090``, ``best``)."""

    checkpoint: str
    reason: str
    epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """Training goes on with step ``step``; earlier rows from that step on are void."""

    device: str = ""
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    message: str


@dataclass(frozen=True, kw_only=True)
class Ended(Event):
    """The worker is done: ``reason`` is one of ``END_REASONS``, ``message`` a sentence for people."""

    reason: str
    message: str = ""


KINDS: dict[str, type[Event]] = {
    kind.__name__.lower(): kind
    for kind in (Started, Phase, Stepped, Evaluated, Sampled, Probed, Saved, Resumed, Warned, Ended)
}


#: The fields of each kind and their types: logs hold a hundred thousand lines.
_FIELDS = {kind: tuple((item.name, str(item.type)) for item in dataclasses.fields(kind)) for kind in KINDS.values()}


def _plain(value: Any) -> Any:
    """``value`` with every number that is not finite replaced by None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def to_row(event: Event) -> dict[str, Any]:
    """The event as the dictionary that its line holds, ``event`` first."""
    row = {item.name: _plain(getattr(event, item.name)) for item in dataclasses.fields(event)}
    return {"event": type(event).__name__.lower(), "time": row.pop("time"), "step": row.pop("step"), **row}


def encode(event: Event) -> str:
    """One line of JSON, without the newline."""
    return json.dumps(to_row(event), ensure_ascii=False, allow_nan=False)


def _restored(name: str, annotation: str, value: Any) -> Any:
    """``value`` from JSON as the field's type, or ValueError."""
    if annotation == "float":
        if type(value) is float:
            return value
        if value is None:
            return NAN
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name} is no number")
        return float(value)
    if annotation == "int":
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} is no whole number")
        return value
    if annotation == "str":
        if not isinstance(value, str):
            raise ValueError(f"{name} is no text")
        return value
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    if annotation == "tuple[int, ...]":
        return tuple(item if type(item) is int else _restored(name, "int", item) for item in value)
    return tuple(item if item is None or type(item) is float else _restored(name, "float", item) for item in value)


def decode(line: str | bytes) -> Event | None:
    """The event on a line, or None where the line is torn, garbage, or of a kind that is not known here."""
    try:
        return _event(json.loads(line))
    except (ValueError, RecursionError):
        return None


def decode_lines(lines: list[bytes]) -> list[Event]:
    """The events on those lines that hold one. Parsed at one go where all lines are whole, which is the rule."""
    try:
        rows = json.loads(b"[" + b",".join(lines) + b"]")
        if len(rows) == len(lines):
            return [event for event in map(_event, rows) if event is not None]
    except (ValueError, RecursionError):
        pass
    return [event for event in map(decode, lines) if event is not None]


def _event(row: Any) -> Event | None:
    try:
        kind = KINDS[row["event"]]
        values = {name: _restored(name, annotation, row[name]) for name, annotation in _FIELDS[kind] if name in row}
        return kind(**values)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
