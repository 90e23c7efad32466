"""The live charts of a run with the choices that a person has about them."""

from __future__ import annotations

import streamlit as st

from gptlab.coach import TextFacts
from gptlab.config import RunConfig
from gptlab.log import RunLog
from gptlab.metrics import Extent
from gptlab.runs import Run
from pages.shared.live_chart import live_chart
from pages.shared.loss_chart import AXES, MOST_SMOOTHING, View, loss_chart


def loss_panel(
    run: Run | None,
    log: RunLog | None,
    extent: Extent,
    config: RunConfig | None,
    facts: TextFacts | None = None,
    *,
    live: bool = False,
) -> None:
    """The chart of ``loss_chart``, and above it what can be chosen about it."""
    live_chart(loss_chart(run, log, extent, config, facts, _chosen(), live=live), key="losses")


def _chosen() -> View:
    with st.container(horizontal=True, vertical_alignment="bottom", key="chart-options"):
        axis = st.segmented_control(
            "Against", list(AXES), default="epoch", format_func=AXES.__getitem__, required=True, key="axis"
        )
        with st.popover("Scales and smoothing", icon=":material/tune:"):
            log_x = st.toggle("Logarithmic x-axis", key="log-x")
            log_y = st.toggle("Logarithmic loss axis", key="log-y")
            smoothing = st.slider(
                "Smoothing of the training loss",
                0.0,
                MOST_SMOOTHING,
                0.0,
                0.01,
                key="smoothing",
                help="Debiased moving average of the steps' losses. Validation is never smoothed.",
            )
    return View(axis or "epoch", log_x, log_y, smoothing)
