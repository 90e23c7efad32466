"""One run to keep in order: its name, tags and notes, what to do with it next, its files, its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import streamlit as st

from gptlab import launcher
from gptlab.runs import Run, live_runs
from gptlab.script import script_of_run
from gptlab.summary import folder_bytes
from pages.shared.addresses import run_url
from pages.shared.look import escape, plain, size
from pages.shared.store import store

NEWS, FAULT, RESUMED = "runs.news", "runs.fault", "runs.resumed"
RESUMABLE = ("stopped", "failed", "interrupted")


def run_card(run: Run) -> None:
    """Everything that can be done with ``run``; exactly one of its buttons is the page's primary one."""
    status, log = run.status(), run.log()
    error = run.config_error or (f"Its event log cannot be read: {log.unreadable}." if log.unreadable else None)
    if error:
        plain(error, icon=":material/warning:")
    _onward(run, status, error)
    _about(run)
    _downloads(run)
    _python(run)
    live = run.is_locked()
    why = "It is training: stop it on the Training page first." if live else None
    if st.button("Delete …", icon=":material/delete:", disabled=live, help=why, key="runs.delete"):
        delete_dialog(run)


def _onward(run: Run, status: str, error: str | None) -> None:
    resumable = status in RESUMABLE and error is None
    playing: Literal["primary", "secondary"] = "secondary" if resumable else "primary"
    with st.container(horizontal=True):
        if resumable and st.button("Resume", type="primary", icon=":material/play_arrow:"):
            _ask_or_resume(run)
        if st.button("Open in Playground", type=playing, icon=":material/edit_note:"):
            st.switch_page("pages/playground.py", query_params={"run": run.id})
    with st.container(horizontal=True):
        link: Any = {"query_params": {"run": run.id}}
        st.page_link("pages/training.py", label="Training", icon=":material/show_chart:", **link)
        st.page_link("pages/samples.py", label="Samples", icon=":material/format_quote:", **link)


def _ask_or_resume(run: Run) -> None:
    device = run.log().device or run.config.train.device
    others = [other for other in live_runs(store()) if other.log().device in (device, None) and other.id != run.id]
    if others:
        resume_dialog(run, others[0], device)
    else:
        _resume(run)
        st.rerun()


@st.dialog("Two at once?")
def resume_dialog(run: Run, other: Run, device: str) -> None:
    plain(f"{other.name} is training on {device} now. {run.name} would share it, and both would be slower.")
    _close_when_done()
    st.button("Resume nevertheless", icon=":material/play_arrow:", on_click=_resume, args=(run,))


def _resume(run: Run) -> None:
    try:
        launcher.resume(run)
    except (OSError, ValueError) as error:
        st.session_state[FAULT] = str(error)
    else:
        st.session_state[RESUMED] = run.id


def _about(run: Run) -> None:
    about = run.about
    with st.form(f"runs.about.{run.id}", border=False):
        name = st.text_input("Name", about.name, placeholder=run.id)
        tags = st.multiselect(
            "Tags", _known_tags(run), list(about.tags), accept_new_options=True, placeholder="Add tags"
        )
        notes = st.text_area("Notes", about.notes, height=90, placeholder="What was tried, and what came of it")
        if not st.form_submit_button("Save", icon=":material/check:"):
            return
    try:
        run.update_about(name=name, tags=tuple(tags), notes=notes)
    except ValueError as error:
        st.error(escape(str(error)))
    except OSError as error:
        st.error(f"It could not be saved: {escape(error.strerror or str(error))}.")
    else:
        st.session_state[NEWS] = "Saved."
        st.rerun()


def _known_tags(run: Run) -> list[str]:
    return sorted({tag for other in store().list() for tag in other.about.tags} | set(run.about.tags))


def _downloads(run: Run) -> None:
    saved = {item.name: item for item in reversed(run.checkpoints())}
    with st.container(horizontal=True):
        for file, label, icon in (
            ("config.json", "Configuration", ":material/tune:"),
            ("metrics.csv", "Metrics as CSV", ":material/table:"),
            ("report.html", "Report", ":material/summarize:"),
        ):
            there = (run.path / ("config.json" if file == "config.json" else "events.jsonl")).is_file()
            st.link_button(label, run_url(run, file), icon=icon, disabled=not there)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.selectbox(
            "Weights",
            list(saved),
            format_func=lambda name: f"{name} · {size(_weight(saved[name].weights))}",
            placeholder="Nothing saved",
            disabled=not saved,
            key=f"runs.weights.{run.id}",
        )
        url = run_url(run, f"{wanted}/weights.safetensors") if wanted in saved else "#"
        st.link_button("Download", url, icon=":material/download:", disabled=wanted not in saved)


def _python(run: Run) -> None:
    """The script that does what the run did, to read, to copy, to take along."""
    with st.expander("The Python that does this", icon=":material/code:", key="runs.python"):
        try:
            script = script_of_run(run)
        except ValueError:
            st.markdown(":gray[Its configuration cannot be read.]")
            return
        st.code(script, language="python")
        st.link_button("Download the script", run_url(run, "script.py"), icon=":material/download:")


def _weight(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


@st.dialog("Delete this run?")
def delete_dialog(run: Run) -> None:
    plain(run.name, tone="strong")
    n = len(run.checkpoints())
    st.markdown(
        f"Its log, its configuration, its notes and {n} saved model{'' if n == 1 else 's'} "
        f"({size(folder_bytes(run.path))}) will be gone for good. Texts are kept."
    )
    _close_when_done()
    st.button("Delete for good", icon=":material/delete_forever:", on_click=_delete, args=(run.id, run.name))


def _delete(run_id: str, name: str) -> None:
    try:
        store().delete(run_id)
    except (OSError, ValueError) as error:
        st.session_state[FAULT] = str(error)
        return
    st.session_state[NEWS] = f"{name} was deleted."
    st.session_state.pop("run", None)
    st.query_params.pop("run", None)


def _close_when_done() -> None:
    """In a dialog, after its button: close it, or say why nothing was done."""
    if st.session_state.get(NEWS) or st.session_state.get(RESUMED):
        st.rerun()
    if fault := st.session_state.pop(FAULT, None):
        st.error(escape(fault))


def news() -> None:
    """What was done, or could not be, before this rerun; said once. A run that was resumed is watched."""
    if resumed := st.session_state.pop(RESUMED, None):
        st.switch_page("pages/training.py", query_params={"run": resumed})
    if said := st.session_state.pop(NEWS, None):
        st.toast(escape(said), icon=":material/check:")
    if fault := st.session_state.pop(FAULT, None):
        st.error(escape(fault), icon=":material/error:")
