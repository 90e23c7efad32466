"""The controls of how the next token is chosen, as one panel whose values are a ``SamplingConfig``."""

from __future__ import annotations

from typing import Any

import streamlit as st
from pydantic import ValidationError

from gptlab.config import SamplingConfig
from gptlab.parsing import explain_validation_error
from pages.shared.model_cache import devices

KEY = "playground"
_DEVICE_HELP = "Where the model writes. The CPU leaves an accelerator to training."
MOST_NEW_TOKENS = 2000  # on one page; the command line has no such limit


def decoding_controls() -> None:
    """Draw the panel. ``chosen_sampling`` and ``chosen_device`` say what stands in it, also inside a callback."""
    st.subheader("How it chooses", anchor=False)
    st.number_input("New tokens", 1, MOST_NEW_TOKENS, 50, 10, **_about("max_new_tokens"))
    greedy = st.slider("Temperature", 0.0, 2.0, 0.0, 0.05, **_about("temperature")) == 0
    left, right = st.columns(2)
    left.number_input("Top k", 1, None, None, 5, placeholder="all", disabled=greedy, **_about("top_k"))
    right.number_input("Top p", 0.0, 1.0, None, 0.05, placeholder="all", disabled=greedy, **_about("top_p"))
    st.number_input("Repetition penalty", 0.05, 10.0, 1.0, 0.05, **_about("repetition_penalty"))
    st.number_input("Seed", 0, 2**53 - 1, None, 1, placeholder="new each time", disabled=greedy, **_about("seed"))
    st.toggle("Stop at the end of the text", True, **_about("stop_at_end"))
    st.selectbox("Device", devices(), key=f"{KEY}.device", persist_state="session", help=_DEVICE_HELP)
    st.caption(
        "Greedy: always the likeliest token. Top k, top p and the seed change nothing."
        if greedy
        else "Drawn by chance, more daring the higher the temperature. Give a seed to get the same answer again."
    )


def chosen_sampling() -> SamplingConfig:
    """What the panel says now. ValueError: the values are impossible."""
    values = {name: st.session_state.get(f"{KEY}.{name}") for name in SamplingConfig.model_fields}
    optional = ("top_k", "top_p", "seed")
    try:
        return SamplingConfig(**{name: v for name, v in values.items() if v is not None or name in optional})
    except ValidationError as error:
        raise ValueError(explain_validation_error(error)) from error


def chosen_device() -> str:
    return st.session_state.get(f"{KEY}.device") or "cpu"


def _about(name: str) -> dict[str, Any]:
    """Key, help and lasting state of the widget of one field of ``SamplingConfig``."""
    field = SamplingConfig.model_fields[name]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    typical = f" Typical: {extra['typical']}." if extra.get("typical") else ""
    text = f"{field.description}{typical}".replace("<|", r"\<|").replace("|>", r"|\>")
    return {"help": text, "key": f"{KEY}.{name}", "persist_state": "session"}


def in_words(sampling: SamplingConfig) -> str:
    """``temperature 0.8, top k 40, seed 1``; ``greedy`` when nothing is drawn."""
    if sampling.temperature == 0:
        parts = ["greedy"]
    else:
        parts = [f"temperature {sampling.temperature:g}"]
        parts += [f"top k {sampling.top_k}"] if sampling.top_k else []
        parts += [f"top p {sampling.top_p:g}"] if sampling.top_p is not None else []
        parts += [f"seed {sampling.seed}"] if sampling.seed is not None else []
    if sampling.repetition_penalty != 1:
        parts.append(f"repetition penalty {sampling.repetition_penalty:g}")
    return ", ".join(parts)
