"""Which saved model of a run speaks: a choice that lives in the URL (``?checkpoint=best``)."""

from __future__ import annotations

import time

import streamlit as st

from gptlab.runs import CheckpointInfo, Run
from pages.shared.look import ago, escape, size

KEY = "playground.checkpoint"


def pick_checkpoint(run: Run) -> str | None:
    """Let the person choose ``last``, ``best`` or the name of a step; None where nothing is saved.

    A choice that is not (or no longer) there falls back to ``last``, with a sentence unless another run was chosen.
    """
    saved = run.checkpoints()
    steps = [item.name for item in reversed(saved) if item.name != "best"]
    best = [item.name for item in saved if item.name == "best"]
    options = [*(["last"] if saved else []), *best, *steps]
    named = st.query_params.get("checkpoint")
    wanted = named or st.session_state.get(KEY) or "last"
    same_run = st.session_state.get("playground.run") in (None, run.id)
    st.session_state["playground.run"] = run.id
    found = _named(run, wanted)
    if found is None and options and same_run:
        st.warning(f"There is no checkpoint {escape(wanted)} any more, or the link is wrong: here is the newest.")
    chosen = wanted if wanted in options else found.name if found and found.name in options else "last"
    st.session_state[KEY] = chosen if options else None
    if options and named != chosen:
        st.query_params["checkpoint"] = chosen
    labels = {name: _label(run, name) for name in options}
    picked = st.selectbox(
        "Weights",
        options,
        format_func=lambda name: labels.get(name, name),
        key=KEY,
        placeholder="Nothing saved yet",
        disabled=not options,
        persist_state="session",
        on_change=_follow,
        help="Which of the saved models speaks. *Newest* follows a run that still trains; *best* had the lowest "
        "validation loss.",
    )
    return picked if options else None


def chosen_checkpoint() -> str:
    return st.session_state.get(KEY) or "last"


def _follow() -> None:
    if chosen := st.session_state.get(KEY):
        st.query_params["checkpoint"] = chosen


def _named(run: Run, name: str) -> CheckpointInfo | None:
    try:
        return run.checkpoint(name)
    except (OSError, ValueError):
        return None


def _label(run: Run, name: str) -> str:
    found = _named(run, name)
    if name == "last":
        return "newest" + (f" · {_when(run, found)}" if found and not run.is_locked() else "")
    return ("best · " if name == "best" else "") + (_when(run, found) if found else name)


def _when(run: Run, item: CheckpointInfo) -> str:
    """``after 51 steps, in epoch 6``, as far as it is known."""
    epochs = [saved.epoch for saved in run.log().saved if saved.checkpoint == item.name and saved.epoch]
    return f"after {item.step:,} steps" + (f", in epoch {epochs[-1]}" if epochs else "")


def weights_line(run: Run, wanted: str | None) -> None:
    """When the chosen weights were saved; kept fresh, with an offer of newer ones, while the run trains."""
    live = run.is_locked()
    st.fragment(_line, run_every=2 if live else None)(run, wanted, live)


def _line(run: Run, wanted: str | None, was_live: bool) -> None:
    live = run.is_locked()
    found = _named(run, wanted or "last")
    if live != was_live or (wanted is None and found is not None):
        st.rerun()  # the rest of the page has something new to say too
    with st.container(horizontal=True, vertical_alignment="center", key="weights-line"):
        if found is None:
            st.caption(_nothing(run, live))
            return
        started = run.log().started
        if live and started:
            goes_on = "is paused; it goes" if run.status() == "paused" else "goes on,"
            st.caption(
                f"Saved {_when(run, found)}, {_age(found)}. Training {goes_on} to {started.total_steps:,} steps."
            )
        else:
            st.caption(f"Saved {_age(found)}, {size(found.bytes)}.")
        if live:
            newest = _named(run, "last") or found
            newer = newest.step > found.step
            st.button(
                f"Use the newest: after {newest.step:,} steps" if newer else "These are the newest",
                key="use-newest", disabled=not newer, type="tertiary", icon=":material/update:", on_click=_use_newest,
            )  # fmt: skip


def _nothing(run: Run, live: bool) -> str:
    if run.status() == "discarded":
        return "The checkpoints of this run were discarded: choose another run."
    if live:
        return "Nothing is saved yet: the first weights come at the end of the first epoch, and then appear here."
    return "This run ended before anything was saved: resume it on the Runs page, or choose another run."


def _age(item: CheckpointInfo) -> str:
    try:
        return ago(item.weights.stat().st_mtime, time.time())
    except OSError:
        return "just now"


def _use_newest() -> None:
    st.session_state[KEY] = "last"
    st.query_params["checkpoint"] = "last"
