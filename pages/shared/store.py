"""The runs of this machine, as every page sees them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from gptlab.home import runs_folder
from gptlab.runs import Run, RunStore


def store() -> RunStore:
    """The run store in the data folder. Cheap: it holds a path, the truth is on disk."""
    return RunStore(runs_folder())


def listed(run_id: str) -> Run | None:
    """The run of that id, only if the store lists it: no path is made from what a browser sent."""
    return next((run for run in store().list() if run.id == run_id), None)


def kept(run: Run) -> Run:
    """The same run as an object shared by all sessions, whose log is read once and then only where it grew."""
    return _kept(str(run.path))


@st.cache_resource(max_entries=200, show_spinner=False)
def _kept(path: str) -> Run:
    return Run(Path(path))
