"""A run's controls: pause, single step, save, stop, resume; and what comes after its end."""

from __future__ import annotations

import math

import streamlit as st

from gptlab import launcher
from gptlab.runs import LIVE, Run
from pages.shared.look import escape, plain
from pages.shared.run_picker import NEW, show_in_url

GO_WIDTH = 124  # pixels: of "Pause" and "Resume" alike


def controls(run: Run, status: str) -> None:
    """The row of buttons that fits the run's status: exactly one of them is the primary one."""
    with st.container(horizontal=True, key="player"):
        if status in LIVE:
            _live(run, status)
        else:
            _over(run, status)


def _live(run: Run, status: str) -> None:
    ask = {"on_click": run.request, "disabled": run.pending_request() in ("stop", "discard")}
    # One button that pauses and goes on, as wide under either name: what stands beside it never moves under a pointer.
    label, icon, wish = ("Resume", "play_arrow", "resume") if status == "paused" else ("Pause", "pause", "pause")
    st.button(label, type="primary", icon=f":material/{icon}:", key="go", width=GO_WIDTH, args=(wish,), **ask)  # type: ignore[arg-type]
    st.button("Single step", icon=":material/skip_next:", args=("step",), help="Make one step, then pause.", **ask)  # type: ignore[arg-type]
    st.button("Save now", icon=":material/save:", args=("save",), help="Save a checkpoint after this step.", **ask)  # type: ignore[arg-type]
    if st.button("Stop …", icon=":material/stop:"):
        _stop_dialog(run)


@st.dialog("Stop this run?")
def _stop_dialog(run: Run) -> None:
    plain(run.name, tone="strong")
    st.markdown(
        "**Stop and keep** saves a checkpoint after the step that is being made; you can resume from it. "
        "**Stop and discard** deletes all checkpoints of this run and keeps its log; nothing can be resumed."
    )
    with st.container(horizontal=True):
        kept = st.button("Stop and keep", type="primary", icon=":material/stop:", on_click=run.request, args=("stop",))
        gone = st.button("Stop and discard", icon=":material/delete:", on_click=run.request, args=("discard",))
        if kept or gone:
            st.rerun()  # closes the dialog


def _over(run: Run, status: str) -> None:
    resumable = status in ("stopped", "failed", "interrupted") and run.config_error is None
    if resumable and st.button("Resume", type="primary", icon=":material/play_arrow:"):
        try:
            launcher.resume(run)
        except (ValueError, OSError) as error:
            st.error(escape(str(error)))
        else:
            st.rerun()
    main = "secondary" if resumable else "primary"
    if run.log().samples and st.button("Read the samples", type=main, icon=":material/format_quote:"):  # type: ignore[arg-type]
        st.switch_page("pages/samples.py", query_params={"run": run.id})
    elif not run.log().samples and not resumable:
        st.button("New run", type="primary", icon=":material/add:", on_click=show_in_url, args=(NEW,))
        return
    if run.checkpoints() and st.button("Try it in the Playground", icon=":material/edit_note:"):
        st.switch_page("pages/playground.py", query_params={"run": run.id})
    st.button("New run", icon=":material/add:", on_click=show_in_url, args=(NEW,))


def how_it_ended(run: Run, status: str) -> None:
    """After the end: what happened, what was saved, what can be done. Before: nothing."""
    log = run.log()
    told = escape(log.ended.message) if log.ended and log.ended.message else ""
    if status == "finished":
        st.success(told or "Finished.", icon=":material/check_circle:")
    elif status == "stopped":
        st.info(told or f"Stopped. {_saved(run)}", icon=":material/stop_circle:")
    elif status == "discarded":
        st.info(told or "Stopped; its checkpoints were deleted, its log is kept.", icon=":material/delete:")
    elif status == "failed":
        st.error(told or f"It failed. {_saved(run)}", icon=":material/error:")
        _worker_log(run)
    elif status == "interrupted":
        if math.isnan(log.last_time):
            said = "It never began: its worker ended before the first word."
        else:
            said = f"The worker ended without a word after {log.steps_completed:,} steps: killed, or without power."
        st.warning(f"{said} {_saved(run)}", icon=":material/power_off:")
        _worker_log(run)
    elif status == "damaged":
        st.error(escape(run.config_error or "The run's files are damaged."), icon=":material/broken_image:")


def _saved(run: Run) -> str:
    kept = [item for item in run.checkpoints() if item.resumable]
    if kept:
        return f"Saved: {kept[-1].name}. Resume goes on from there; the steps after it are made again."
    if run.checkpoints():
        return "There are weights to play with, but nothing to resume from: Resume starts from the first step."
    return "No checkpoint had been saved: Resume starts from the first step."


def _worker_log(run: Run) -> None:
    tail = launcher.log_tail(run)
    if tail:
        with st.expander("The worker's last words (worker.log)"):
            st.code(tail, language=None, wrap_lines=True)
