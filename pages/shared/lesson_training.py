"""The small trained model that the lessons speak of: found, or trained on first request, never shipped."""

from __future__ import annotations

import streamlit as st

from gptlab.lesson_run import lesson_run
from gptlab.runs import Run
from pages.shared.look import escape, number
from pages.shared.store import store


def train_first(run: Run | None) -> None:
    """In place of a lesson: train the model, or how far its training is. The page goes on by itself once it is done."""
    if run is None or not run.is_locked():
        st.info(
            "The lessons look into a small model that has just been trained. None is ready on this machine: it "
            "takes a minute or two to train, on the built-in story.",
            icon=":material/school:",
        )
        if st.button("Train the small model", type="primary", icon=":material/play_arrow:", key="train-lesson-model"):
            try:
                lesson_run(store())
            except (ValueError, OSError) as error:
                st.error(escape(str(error)), icon=":material/error:")
                return
            st.rerun()
        return
    st.fragment(_progress, run_every=0.5)(run)


def _progress(run: Run) -> None:
    log = run.log()
    if not run.is_locked():
        st.rerun()
    total = log.started.total_steps if log.started else 0
    share = min(1.0, log.steps_completed / total) if total else 0.0
    losses = f", training loss {number(log.steps[-1].loss, 2)}" if log.steps else ""
    said = f"Training the small model: step {log.steps_completed:,} of {total:,}{losses}" if total else "Starting …"
    st.progress(share, text=said)
    st.caption("The lesson opens here as soon as it is done.")
