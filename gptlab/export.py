"""A run's numbers as a table for other programs: one row a step, the evaluation made after it beside its losses."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator

from gptlab.events import Evaluated, Event, Stepped

METRIC_COLUMNS = (
    "step",
    "epoch",
    "tokens_seen",
    "loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "train_loss",
    "val_loss",
    "time",
)


def metric_rows(events: Iterable[Event]) -> list[dict[str, float | int | None]]:
    """``METRIC_COLUMNS`` of every step in ``events``, first step first; None where nothing was measured.

    ``loss`` is the step's own (mean over its batches), ``train_loss`` and ``val_loss`` those of the evaluation after
    it, ``time`` Unix seconds. An evaluation without its step, as a damaged log may hold, is a row of its own.
    """
    rows: dict[int, dict[str, float | int | None]] = {}
    for event in events:
        if isinstance(event, (Stepped, Evaluated)):
            row = rows.setdefault(event.step, dict.fromkeys(METRIC_COLUMNS))
            for name in METRIC_COLUMNS:
                value = getattr(event, name, None)
                if value is not None and math.isfinite(value) and not (name == "time" and row["time"] is not None):
                    row[name] = value
    return [rows[step] for step in sorted(rows)]


def metrics_csv(events: Iterable[Event]) -> Iterator[str]:
    """The rows as lines of CSV with a header; what was not measured, or is not finite, is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, METRIC_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in metric_rows(events):
        writer.writerow(row)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()
