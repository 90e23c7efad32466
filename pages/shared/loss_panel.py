"""The live charts of a run with the choices that a person has about them."""

from __future__ import annotations

import streamlit as st

from gptlab.coach import TextFacts
from gptlab.config import RunConfig
from gptlab.figures import evaluation_table, training_figure
from gptlab.log import RunLog
from gptlab.metrics import Axis, Extent, epoch_marks
from gptlab.panels import AXIS_TITLES
from gptlab.runs import Run
from pages.shared.live_chart import live_chart
from pages.shared.routes import download_url

AXES: dict[Axis, str] = {"epoch": "Epochs", "step": "Steps", "tokens": "Tokens", "time": "Time"}


def loss_panel(
    run: Run | None, log: RunLog | None, extent: Extent, config: RunConfig | None, facts: TextFacts | None = None
) -> None:
    """Losses, learning rate and gradient norm; greyed axes where there is nothing to draw yet."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="chart-options"):
        chosen = st.segmented_control(
            "Against", list(AXES), default="epoch", format_func=AXES.__getitem__, required=True, key="axis"
        )
        axis: Axis = chosen or "epoch"
        with st.popover("Scales and smoothing", icon=":material/tune:"):
            log_x = st.toggle("Logarithmic x-axis", key="log-x")
            log_y = st.toggle("Logarithmic loss axis", key="log-y")
            smoothing = st.slider(
                "Smoothing of the training loss",
                0.0,
                0.99,
                0.0,
                0.01,
                key="smoothing",
                help="Debiased moving average of the steps' losses. Validation is never smoothed.",
            )
    idle = log is None or not log.steps
    vocab_size = config.model.vocab_size if config else 50_257
    figure = training_figure(
        log,
        extent,
        vocab_size=vocab_size,
        unigram_entropy=facts.unigram_entropy if facts else None,
        axis=axis,
        log_x=log_x,
        log_y=log_y,
        smoothing=smoothing,
        revision=run.id if run else "none",
    )
    live_chart(
        figure,
        key="losses",
        label=_told(log, axis),
        name=f"losses-{run.id}" if run else "losses",
        table=evaluation_table(log, extent) if log else None,
        csv_url=download_url(run, "metrics.csv") if run else None,
        run=run.id if run else "",
        epochs=epoch_marks(log, axis, extent) if log else None,
        note="The losses will appear here, point by point." if idle else None,
    )


def _told(log: RunLog | None, axis: Axis) -> str:
    """The chart in a sentence."""
    if log is None or not log.evaluations:
        return "Training and validation loss: nothing to draw yet."
    last, best = log.evaluations[-1], log.best
    told = f"Losses against {AXIS_TITLES[axis]}: training {last.train_loss:.3f}, validation {last.val_loss:.3f}"
    return f"{told}; best validation {best.val_loss:.3f} in epoch {best.epoch}." if best else f"{told}."
