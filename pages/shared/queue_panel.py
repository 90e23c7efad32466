"""The queue: what trains now, what waits, what became of the others, and the order of it all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import streamlit as st

from gptlab.corpus import CorpusError, open_corpus
from gptlab.metrics import seconds_per_step
from gptlab.prediction import predicted_seconds
from gptlab.queue import Entry, Queue, State
from gptlab.runs import Run
from pages.shared.look import duration, escape
from pages.shared.run_table import MARKS
from pages.shared.store import kept, store
from pages.shared.waking import wake_queue

CHOSEN, FAULT = "queue.chosen", "queue.fault"
REFRESH = 2  # seconds
_MOST_ROWS, _ROW, _HEAD = 12, 35, 38


def queue_panel() -> None:
    """The queue as a section of a page. It refreshes by itself while something is to be done."""
    state, fault = read_queue()
    busy = any(not entry.is_over for entry in state.entries)
    if busy:
        fault = wake_queue()  # a runner may have been killed since the dashboard started
    with st.expander(_title(state), expanded=busy or bool(fault), icon=":material/low_priority:", key="queue"):
        if fault:
            st.error(escape(fault), icon=":material/error:")
            return
        st.fragment(_panel, run_every=REFRESH if busy else None)(busy)


def read_queue() -> tuple[State, str]:
    """The queue, and why it cannot be read."""
    try:
        return Queue().read(), ""
    except ValueError as error:
        return State(), str(error)


def _title(state: State) -> str:
    training, waiting = sum(entry.under_way for entry in state.entries), len(state.waiting)
    over = len(state.entries) - training - waiting
    counts = [f"{n:,} {what}" for n, what in ((training, "training"), (waiting, "waiting"), (over, "over")) if n]
    return "Queue · " + (", ".join(counts) or "empty") + (" · paused" if state.paused else "")


def _panel(busy: bool) -> None:
    state, fault = read_queue()
    if fault or busy != any(not entry.is_over for entry in state.entries):
        st.rerun()
    if said := st.session_state.pop(FAULT, None):
        st.error(escape(said), icon=":material/error:")
    if not state.entries:
        st.markdown(":gray[Nothing waits. Queued runs train one after another, also with no dashboard open.]")
        st.page_link("pages/hyperparameters.py", label="Add some on the Hyperparameters page", icon=":material/tune:")
        return
    seconds = {entry.id: _seconds(entry) for entry in state.entries if not entry.is_over}
    _outlook(state, seconds)
    chosen = _table(state, seconds)
    _actions(state, chosen)


def _outlook(state: State, seconds: dict[str, float | None]) -> None:
    """When all will be over, as far as that is known, and the switch that pauses the queue."""
    with st.container(horizontal=True, vertical_alignment="center"):
        known = [value for value in seconds.values() if value is not None]
        missing = len(seconds) - len(known)
        said = "Everything is over." if not seconds else f"About {duration(sum(known))} to go" if known else ""
        if missing:
            said += (", and " if said else "") + f"{missing} whose time has not been measured"
        st.markdown(f":gray[{said}]" if said else "", width="stretch")
        st.toggle(
            "Pause the queue",
            value=state.paused,
            key=f"queue.paused.{state.paused}",
            help="The run under way goes on; no other begins.",
            on_change=_do,
            args=("pause", not state.paused),
        )


def _seconds(entry: Entry) -> float | None:
    """What is left of an entry: predicted, or by the pace that its run has."""
    try:
        if entry.under_way:
            log = kept(Run(store().root / entry.run)).log()
            total = log.started.total_steps if log.started else 0
            left = (total - log.steps_completed) * seconds_per_step(log)
            return left if left == left else None
        config = entry.parsed()
        return predicted_seconds(config, *_lengths(config.data.sources, config.data.train_ratio))
    except (OSError, ValueError):
        return None


@st.cache_data(max_entries=64, ttl=600, show_spinner=False)
def _lengths(sources: tuple[str, ...], train_ratio: float) -> tuple[int, int]:
    try:
        train, val = open_corpus(list(sources), download=False).split_ids(train_ratio)
    except CorpusError:
        return 0, 0
    return len(train), len(val)


def _table(state: State, seconds: dict[str, float | None]) -> list[Entry]:
    """All entries; those that are ticked."""
    entries = state.entries
    ticked = st.session_state.get(CHOSEN, ())
    stamp = "/".join(entry.id + entry.outcome for entry in entries)
    picked = st.dataframe(
        [_row(entry, seconds.get(entry.id)) for entry in entries],
        key="queue.table." + hashlib.sha256(stamp.encode()).hexdigest()[:12],
        height=_HEAD + _ROW * min(len(entries), _MOST_ROWS) + 2,
        hide_index=True,
        placeholder="–",
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [n for n, entry in enumerate(entries) if entry.id in ticked]}},
        column_config={
            "Run": st.column_config.TextColumn(width=330, pinned=True),
            "State": st.column_config.TextColumn(width=115),
            "Time": st.column_config.TextColumn(width=110, help="Predicted; of a run under way: what is left"),
            "Device": st.column_config.TextColumn(width=70),
            "What became of it": st.column_config.TextColumn(width=380),
        },
        alt="The queue in its order",
    )
    rows = [entries[row] for row in sorted(picked["selection"]["rows"]) if row < len(entries)]
    st.session_state[CHOSEN] = tuple(entry.id for entry in rows)
    return rows


def _row(entry: Entry, seconds: float | None) -> dict[str, Any]:
    state = MARKS.get(entry.outcome, entry.outcome) or (MARKS["running"] if entry.under_way else "… waiting")
    return {
        "Run": entry.name or entry.run or "unnamed",
        "State": "✕ refused" if entry.outcome == "refused" else state,
        "Time": duration(seconds) if seconds is not None else None,
        "Device": entry.device,
        "What became of it": " ".join(entry.message.split()) or None,
    }


def _actions(state: State, chosen: Sequence[Entry]) -> None:
    waiting = [entry.id for entry in chosen if entry.waits]
    removable = [entry.id for entry in chosen if not entry.under_way]
    why = None if waiting else "Tick waiting rows first."
    with st.container(horizontal=True):
        for label, icon, by in (
            ("Up", "arrow_upward", -1),
            ("Down", "arrow_downward", 1),
            ("To the top", "vertical_align_top", -len(state.waiting)),
        ):
            st.button(
                label, icon=f":material/{icon}:", disabled=not waiting, help=why, key=f"queue.{label}",
                on_click=_do, args=("move", waiting, by),
            )  # fmt: skip
        st.button(
            "Remove", icon=":material/close:", disabled=not removable, key="queue.remove",
            help=None if removable else "Tick rows first. A run that trains is stopped on the Training page.",
            on_click=_do, args=("remove", removable),
        )  # fmt: skip
        over = [entry.id for entry in state.entries if entry.is_over]
        if over:
            st.button(
                "Clear what is over", icon=":material/clear_all:", type="tertiary", key="queue.clear",
                help="Their runs stay.", on_click=_do, args=("remove", over),
            )  # fmt: skip


def _do(what: str, *arguments: Any) -> None:
    """Change the queue, and see that it is worked off; a fault is said once."""
    try:
        getattr(Queue(), what)(*arguments)
    except (OSError, ValueError) as error:
        st.session_state[FAULT] = str(error)
    else:
        if fault := wake_queue():
            st.session_state[FAULT] = fault
