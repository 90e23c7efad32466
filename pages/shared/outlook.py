"""What the settings amount to: size, memory, disk, steps, minutes, and the learning rate over time."""

from __future__ import annotations

import streamlit as st

from gptlab.config import RunConfig
from gptlab.device import DeviceInfo, available_devices
from gptlab.estimate import Estimate, estimate
from gptlab.figures import RATE, Figure
from gptlab.home import free_bytes, runs_folder
from gptlab.preflight import SPARE_BYTES
from gptlab.schedule import learning_rate_at
from gptlab.tokenizer import get_tokenizer
from pages.shared.look import duration, escape, number, size
from pages.shared.predicted import WHY, Prediction, when_known

MOST_POINTS = 300
UNUSUAL_RATE = 0.02


def outlook(config: RunConfig, n_train: int, n_val: int, *, idle: bool) -> None:
    """The figures, live. ``idle``: no run is training, so that a step can be timed."""
    found = estimate(config, n_train, n_val)
    with st.grid(2, min_column_width=120, gap="small"):
        st.metric(
            "Parameters", _short(found.n_parameters), help=f"{found.n_parameters:,} numbers that training adjusts."
        )
        st.metric(
            "Steps in an epoch",
            number(found.steps_per_epoch),
            help="Updates of the weights in one reading of the text.",
        )
        st.metric(
            "Memory",
            f"≈ {size(found.memory_bytes)}",
            help="While training: weights, gradients, AdamW’s averages, activations.",
        )
        st.metric("Steps in all", number(found.total_steps))
        st.metric(
            "Disk",
            f"≈ {size(found.disk_bytes)}",
            help="At most, for all checkpoints. One checkpoint’s weights: " + size(found.checkpoint_bytes) + ".",
        )
        _time(config, n_train, n_val, idle)
    for sentence in concerns(config, found):
        st.warning(escape(sentence), icon=":material/warning:")


def concerns(config: RunConfig, found: Estimate) -> list[str]:
    """What speaks against these settings, without forbidding them."""
    said = []
    device = _device(config)
    if device and device.memory_bytes and found.memory_bytes > 0.9 * device.memory_bytes:
        said.append(
            f"Training needs about {size(found.memory_bytes)} of memory, and {device.label} has "
            f"{size(device.memory_bytes)}: lower batch_size, context_length, emb_dim or n_layers."
        )
    free = free_bytes(runs_folder())
    if found.disk_bytes + SPARE_BYTES > free:
        said.append(
            f"The checkpoints need {size(found.disk_bytes)} of disk, and {size(free)} are free: Start will refuse. "
            "Keep fewer checkpoints (under Advanced), or free some space."
        )
    if config.optim.learning_rate > UNUSUAL_RATE:
        said.append(
            f"A learning rate of {config.optim.learning_rate:g} is far above the usual 0.0001 to 0.004: "
            "the loss will probably not fall."
        )
    if config.model.vocab_size < get_tokenizer().n_vocab:
        said.append(
            f"vocab_size {config.model.vocab_size:,} is less than the tokenizer’s {get_tokenizer().n_vocab:,}: "
            "a text that holds a token beyond it will be refused."
        )
    return said


def _device(config: RunConfig) -> DeviceInfo | None:
    devices = available_devices()
    wanted = "cuda:0" if config.train.device == "cuda" else config.train.device
    return next((device for device in devices if wanted in ("auto", device.name)), None)


def _time(config: RunConfig, n_train: int, n_val: int, idle: bool) -> None:
    def draw(now: Prediction) -> bool:
        said = {"known": f"≈ {duration(now.seconds)}", "measuring": "measuring …"}.get(now.state, "–")
        st.metric("Time", said, help="From a few steps timed on this machine, with evaluations, samples and saving.")
        if now.reason:
            st.caption(escape(now.reason))
        label, why = "Time a step", WHY
        if now.state == "known":
            label, why = "Time again", "Useful if the machine was busy when the steps were timed."
        disabled = now.state == "measuring"
        return st.button(
            label, key="time-a-step", icon=":material/timer:", type="tertiary", help=why, disabled=disabled
        )

    when_known(config, n_train, n_val, draw, idle=idle)


def _short(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"


def rate_figure(config: RunConfig, total_steps: int) -> Figure:
    """The learning rate of every step of the run."""
    last = max(1, total_steps) - 1
    steps = sorted({round(last * place / (MOST_POINTS - 1)) for place in range(MOST_POINTS)})
    rates = [learning_rate_at(step, total_steps, config.optim) for step in steps]
    line = {
        "type": "scatter",
        "mode": "lines" if len(steps) > 1 else "markers",
        "x": steps,
        "y": rates,
        "line": {"color": RATE, "width": 2},
        "hovertemplate": "step %{x:,}: %{y:.3~g}<extra></extra>",
    }
    layout = {
        "height": 170,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "showlegend": False,
        "dragmode": False,
        "xaxis": {"title": {"text": "step"}, "fixedrange": True, "automargin": True, "rangemode": "tozero"},
        "yaxis": {"fixedrange": True, "rangemode": "tozero", "automargin": True, "nticks": 4, "exponentformat": "e"},
    }
    return {"data": [line], "layout": layout}
