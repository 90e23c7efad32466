"""What the model writes, beside the chart: the epoch under the pointer there, the newest one otherwise."""

from __future__ import annotations

import streamlit as st

from gptlab.log import RunLog
from gptlab.runs import Run
from pages.shared.copied import copies_of
from pages.shared.theatre import frames_of, theatre

MOST_FRAMES = 60  # epochs beside a chart that is drawn again each second; the Samples page has more


def samples_feed(run: Run | None, log: RunLog | None, *, height: int) -> None:
    """The samples of one epoch as coloured tokens, and below them all epochs to choose from."""
    st.subheader("What it writes", anchor=False)
    if run is None or log is None or not log.samples:
        with st.container(height=height, border=True, key="samples-feed"):
            st.markdown(":gray[The first sample comes before the first step, then one after every epoch.]")
        return
    frames = frames_of(log.samples, most=MOST_FRAMES)
    theatre(run, log, frames, copies_of(run), key="samples-feed", layout="feed", height=height)
