"""All runs as one table whose ticked rows are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import streamlit as st

from gptlab.runs import Run, RunStore
from gptlab.summary import RunSummary, fingerprint, summarise
from pages.shared.look import plain
from pages.shared.store import kept

COMPARED = "runs.compared"
FEWEST_TICKED = 3  # newest runs with a curve, ticked when nobody has chosen yet
MARKS = {
    "running": "● training",
    "paused": "‖ paused",
    "finished": "✓ done",
    "stopped": "■ stopped",
    "discarded": "□ discarded",
    "failed": "✕ failed",
    "interrupted": "⌁ interrupted",
    "damaged": "⚠ damaged",
}
_ROW, _HEAD, _MOST_ROWS = 35, 38, 10


def summaries(store: RunStore) -> list[RunSummary]:
    """The line of every run, newest first; only of those that changed since is anything read."""
    return [_summary(kept(run)) for run in store.list()]


@st.cache_resource(max_entries=1, show_spinner=False)
def _told() -> dict[Path, tuple[tuple[object, ...], RunSummary]]:
    return {}


def _summary(run: Run) -> RunSummary:
    told, mark = _told(), fingerprint(run)
    before = told.get(run.path)
    if before is None or before[0] != mark:
        told[run.path] = before = (mark, summarise(run))
    return before[1]


def compared() -> list[str] | None:
    """The ids of the runs that were ticked when the table was last drawn; None: it has not been."""
    return st.session_state.get(COMPARED)


def run_table(lines: Sequence[RunSummary]) -> list[str]:
    """Draw the table; the ids of the ticked runs, newest first."""
    ids = [line.id for line in lines]
    if COMPARED not in st.session_state:
        st.session_state[COMPARED] = [line.id for line in lines if line.best_val_loss is not None][:FEWEST_TICKED]
    before = st.session_state[COMPARED]
    ticked = [ids.index(id_) for id_ in before if id_ in ids]
    hidden = [id_ for id_ in before if id_ not in ids]  # filtered out: they stay ticked
    # Streamlit remembers row numbers: with another list of runs they would point at others, so it gets another key.
    key = "runs.table." + hashlib.sha256("/".join(ids).encode()).hexdigest()[:12]
    chosen = st.dataframe(
        [_row(line) for line in lines],
        key=key,
        height=_HEAD + _ROW * min(max(1, len(lines)), _MOST_ROWS) + 2,
        hide_index=True,
        placeholder="–",
        column_order=tuple(_columns()),
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": ticked}},
        column_config=_columns(),
    )
    rows = sorted(chosen["selection"]["rows"])
    st.session_state[COMPARED] = [ids[row] for row in rows if row < len(ids)] + hidden
    return st.session_state[COMPARED]


def _row(line: RunSummary) -> dict[str, Any]:
    total = f" of {line.total_steps:,}" if line.total_steps else ""
    epochs = f" of {line.num_epochs:,}" if line.num_epochs else ""
    return {
        "name": line.name,
        "status": MARKS.get(line.status, line.status),
        "val": line.best_val_loss,
        "at": line.best_step,
        "train": line.last_train_loss,
        "steps": f"{line.steps:,}{total}",
        "epochs": f"{line.epoch:,}{epochs}",
        "parameters": line.n_parameters,
        "device": line.device,
        "minutes": line.seconds / 60 if line.steps else None,
        "bytes": line.bytes,
        "tags": list(line.tags),
        "notes": " ".join(line.notes.split())[:200],
        "created": datetime.fromtimestamp(line.created),
    }


def _columns() -> dict[str, Any]:
    column = st.column_config
    return {
        "name": column.TextColumn("Name", width=190, pinned=True),
        "status": column.TextColumn("Status", width=100),
        "val": column.NumberColumn(
            "Best val. loss", format="%.3f", width=95, help="Lowest validation loss, nats a token"
        ),
        "at": column.NumberColumn(
            "after steps", format="localized", width=80, help="Steps completed when it was lowest"
        ),
        "train": column.NumberColumn("Train loss", format="%.3f", width=80, help="At the last evaluation"),
        "steps": column.TextColumn("Steps", width=85),
        "epochs": column.TextColumn("Epochs", width=75),
        "minutes": column.NumberColumn("Trained", format="%.1f min", width=75, help="Without pauses"),
        "parameters": column.NumberColumn("Parameters", format="compact", width=85),
        "bytes": column.NumberColumn("On disk", format="bytes", width=80),
        "device": column.TextColumn("Device", width=70),
        "tags": column.ListColumn("Tags", width=120),
        "notes": column.TextColumn("Notes", width=180),
        "created": column.DatetimeColumn("Created", format="D MMM YYYY, HH:mm", width=140),
    }


def problems(lines: Sequence[RunSummary]) -> None:
    """What is wrong with damaged runs, one sentence each."""
    damaged = [line for line in lines if line.problem]
    if not damaged:
        return
    with st.expander(f"{len(damaged)} damaged run folder{'s' if len(damaged) > 1 else ''}", icon=":material/warning:"):
        for line in damaged:
            plain(line.problem or "")
