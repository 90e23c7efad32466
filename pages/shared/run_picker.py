"""Which run a page shows: a choice that lives in the URL (``?run=<id>``), so that a link or a reload finds it again."""

from __future__ import annotations

import time

import streamlit as st

from gptlab.runs import Run, RunStore
from pages.shared.look import escape
from pages.shared.store import kept

NEW = "new"
SETTLING = 5.0  # seconds in which the second press of a double click still arrives, from the address before the start
_HEIGHT = 68  # pixels of the choice with its label: kept free until the browser has loaded the widget
_BEGUN = "begun"  # the runs that this session started, each with its moment


def run_label(run: Run) -> str:
    """A run as people tell it from others: its name, when it was made, whether it trains now."""
    made = time.strftime("%d %b %H:%M", time.localtime(run.created))
    parts = [run.about.name or run.id, made]
    if run.is_locked():
        parts.append("paused" if kept(run).status() == "paused" else "training now")
    return " · ".join(parts)


def show_in_url(run_id: str) -> None:
    """From the next rerun on this page shows that run."""
    starts().clear()
    st.query_params["run"] = run_id


def starts() -> dict[str, float]:
    """The runs that this session has just started, each with its moment; for a little while the page leads there.

    To be had before a run is started, and filled in after it: a second press ends the script wherever it next touches
    the session's state, be it to write down what the first press did.
    """
    if _BEGUN not in st.session_state:
        st.session_state[_BEGUN] = {}
    return st.session_state[_BEGUN]


def just_started() -> str | None:
    """The run that this session started a moment ago, whatever address a second press brought along."""
    fresh = [run_id for run_id, when in starts().items() if time.monotonic() - when < SETTLING]
    return fresh[-1] if fresh else None


def pick_run(store: RunStore, *, key: str = "run", label: str = "Run", new: str | None = None) -> Run | None:
    """Let the person choose a run and return it; None, with a sentence that says what to do, where there is none.

    First the run in the URL, else the one last chosen on another page, else one that trains now, else the newest.
    With ``new``, the words for it, no run at all is a choice too (None, ``?run=new``), and comes before old runs.
    """
    runs = {run.id: run for run in store.list()}
    remembered = st.session_state.get(key)
    if new is not None:
        key += "-or-new"  # a choice of its own, so that "new" is not what the other pages remember
    if not runs and new is None:
        no_run_yet()
        return None
    options = [NEW, *runs] if new else list(runs)
    wanted = st.query_params.get("run")
    if wanted == NEW and new is None:
        wanted = None
    if wanted is None or wanted in options:
        chosen = wanted or _suggested(runs, remembered, fresh=new is not None)
        st.session_state[key] = chosen
        if wanted != chosen:
            st.query_params["run"] = chosen
    else:
        st.session_state[key] = None
        told = "it was deleted, or the link is wrong. Choose another."
        st.warning(f"There is no run {escape(repr(wanted))}: {told}")
    labels = {id_: run_label(run) for id_, run in runs.items()}
    with st.container(height=_HEIGHT, border=False):
        picked = st.selectbox(
            label,
            options,
            format_func=lambda id_: labels.get(id_, new or ""),
            key=key,
            placeholder="Choose a run",
            persist_state="session",
            on_change=_follow,
            args=(key,),
        )
    if picked not in runs:
        return None
    if new is not None:
        st.session_state[key.removesuffix("-or-new")] = picked
    return kept(runs[picked])


def _suggested(runs: dict[str, Run], remembered: str | None, *, fresh: bool) -> str:
    live = next((run.id for run in runs.values() if run.is_locked()), None)
    if fresh:
        return live or NEW
    return (remembered if remembered in runs else None) or live or next(iter(runs))


def no_run_yet() -> None:
    """The empty state of every page that shows runs."""
    st.info("No run yet. Choose a corpus and a size, then press Start on the Training page.", icon=":material/school:")
    with st.container(horizontal=True):
        st.page_link("pages/corpus.py", label="Choose a corpus", icon=":material/menu_book:")
        st.page_link("pages/training.py", label="Go to Training", icon=":material/play_circle:")


def _follow(key: str) -> None:
    chosen = st.session_state.get(key)
    # the second press of a double click brings along what stood here before the start: that is no wish for a new run
    if chosen and not (chosen == NEW and just_started()):
        show_in_url(chosen)
