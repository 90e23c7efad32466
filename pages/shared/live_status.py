"""The sidebar's line about what trains now, on every page."""

from __future__ import annotations

import streamlit as st

from gptlab.runs import live_runs
from pages.shared.look import escape
from pages.shared.store import kept, store


def live_status() -> None:
    """A link and a thin bar for each run that trains now; looked after every three seconds, on idle pages too."""
    st.fragment(_lines, run_every=3)()


def _lines() -> None:
    for run in live_runs(store())[:3]:
        run = kept(run)
        log = run.log()
        total = log.started.total_steps if log.started else 0
        done = log.steps_completed / total if total else 0.0
        label = escape(run.name if len(run.name) <= 40 else run.name[:39] + "…")
        icon = ":material/pause_circle:" if log.phase == "paused" else ":material/model_training:"
        st.page_link("pages/training.py", label=label, icon=icon, query_params={"run": run.id})
        st.progress(min(1.0, done))
