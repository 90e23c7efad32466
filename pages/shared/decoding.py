"""The controls of how the next token is chosen, as one panel whose values are a ``SamplingConfig``."""

from __future__ import annotations

from typing import Any

import streamlit as st
from pydantic import ValidationError

from gptlab.config import SamplingConfig
from gptlab.parsing import explain_validation_error
from pages.shared.generation import MOST_SEARCHED
from pages.shared.model_cache import devices
from pages.shared.url_field import Field, flag, number_in

KEY = "playground"
_DEVICE_HELP = "Where the model writes. The CPU leaves an accelerator to training."
MOST_NEW_TOKENS = 2000  # on one page; the command line has no such limit
MOST_TEXTS = 8  # written side by side: samples of a prompt, or prompts
MOST_BEAMS = 8

# What a preset sets; everything else that it could have set is off.
PRESETS: dict[str, dict[str, float]] = {
    "careful": {"temperature": 0.0},
    "balanced": {"temperature": 0.8, "top_p": 0.95},
    "wild": {"temperature": 1.6, "min_p": 0.02},
}
PRESET_SENTENCES = {
    "careful": "Always the likeliest token: the same answer every time, and small models soon go round in circles.",
    "balanced": "Drawn from the likely tokens, the long tail cut off: readable, and different each time.",
    "wild": "Unlikely tokens get a real chance, hopeless ones none: surprising, often nonsense.",
}
_SET_BY_PRESETS: dict[str, Any] = {
    "temperature": 0.0, "top_k": None, "top_p": None, "min_p": None, "repetition_penalty": 1.0,
}  # fmt: skip

FIELDS = (
    Field("new_tokens", f"{KEY}.max_new_tokens", number_in(1, MOST_NEW_TOKENS, int), 50),
    Field("temperature", f"{KEY}.temperature", number_in(0.0, 2.0), 0.0),
    Field("top_k", f"{KEY}.top_k", number_in(1, 10**6, int)),
    Field("top_p", f"{KEY}.top_p", number_in(0.0, 1.0)),
    Field("min_p", f"{KEY}.min_p", number_in(0.0, 1.0)),
    Field("penalty", f"{KEY}.repetition_penalty", number_in(0.05, 10.0), 1.0),
    Field("seed", f"{KEY}.seed", number_in(0, 2**53 - 1, int)),
    Field("stop_at_end", f"{KEY}.stop_at_end", flag, True),
    Field("samples", f"{KEY}.samples", number_in(1, MOST_TEXTS, int), 1),
    Field("beams", f"{KEY}.beams", number_in(1, MOST_BEAMS, int), 1),
)


def decoding_controls() -> None:
    """Draw the panel. ``chosen_sampling`` and ``chosen_device`` say what stands in it, also inside a callback."""
    for field in FIELDS:
        if field.default is not None:
            st.session_state.setdefault(field.key, field.default)
    st.subheader("How it chooses", anchor=False)
    _presets()
    greedy = st.slider("Temperature", 0.0, 2.0, step=0.05, **_about("temperature")) == 0
    searching = int(st.session_state.get(f"{KEY}.beams") or 1) > 1
    fixed = greedy or searching
    with st.grid(3, gap="small", min_column_width=70):
        st.number_input("Top k", 1, None, None, 5, placeholder="all", disabled=fixed, **_about("top_k"))
        st.number_input("Top p", 0.0, 1.0, None, 0.05, placeholder="all", disabled=fixed, **_about("top_p"))
        st.number_input(
            "Min p", 0.0, 1.0, None, 0.01, format="%.2f", placeholder="all", disabled=fixed, **_about("min_p")
        )
    with st.grid(2, gap="small", min_column_width=110):
        st.number_input("New tokens", 1, MOST_NEW_TOKENS, step=10, **_about("max_new_tokens"))
        st.number_input(
            "Samples", 1, MOST_TEXTS, step=1, key=f"{KEY}.samples", persist_state="session", disabled=fixed,
            help="How many answers are written side by side, each with a seed of its own.",
        )  # fmt: skip
    with st.expander("More", key=f"{KEY}.more"):
        left, right = st.columns(2)
        with left:
            st.number_input("Repetition penalty", 0.05, 10.0, step=0.05, **_about("repetition_penalty"))
            st.number_input(
                "Beams", 1, MOST_BEAMS, step=1, key=f"{KEY}.beams", persist_state="session",
                help="Above 1: beam search. So many texts are followed at once and the likeliest as a whole are kept; "
                f"temperature, top k, top p and min p play no part. At most {MOST_SEARCHED} new tokens.",
            )  # fmt: skip
        with right:
            st.number_input(
                "Seed", 0, 2**53 - 1, None, 1, placeholder="new each time", disabled=fixed, **_about("seed")
            )
            st.selectbox("Device", devices(), key=f"{KEY}.device", persist_state="session", help=_DEVICE_HELP)
        st.toggle("Stop at the end of the text", **_about("stop_at_end"))


def _presets() -> None:
    now = {name: st.session_state.get(f"{KEY}.{name}") for name in _SET_BY_PRESETS}
    named = next((name for name, values in PRESETS.items() if {**_SET_BY_PRESETS, **values} == now), None)
    st.session_state[f"{KEY}.preset"] = named
    st.segmented_control(
        "Preset", list(PRESETS), key=f"{KEY}.preset", on_change=_follow_preset, label_visibility="collapsed",
        format_func=str.capitalize, width="stretch",
    )  # fmt: skip
    own = "Settings of your own."
    st.caption(PRESET_SENTENCES[named] if named else own)


def _follow_preset() -> None:
    if chosen := st.session_state.get(f"{KEY}.preset"):
        for name, value in {**_SET_BY_PRESETS, **PRESETS[chosen]}.items():
            st.session_state[f"{KEY}.{name}"] = value


def chosen_sampling() -> SamplingConfig:
    """What the panel says now. ValueError: the values are impossible."""
    values = {name: st.session_state.get(f"{KEY}.{name}") for name in SamplingConfig.model_fields}
    optional = ("top_k", "top_p", "min_p", "seed")
    try:
        return SamplingConfig(**{name: v for name, v in values.items() if v is not None or name in optional})
    except ValidationError as error:
        raise ValueError(explain_validation_error(error)) from error


def chosen_device() -> str:
    return st.session_state.get(f"{KEY}.device") or "cpu"


def chosen_beams() -> int:
    """How many beams are searched; 1: no beam search."""
    return int(st.session_state.get(f"{KEY}.beams") or 1)


def chosen_samples() -> int:
    """How many answers to a prompt; one where chance plays no part."""
    greedy = not st.session_state.get(f"{KEY}.temperature")
    return 1 if greedy or chosen_beams() > 1 else int(st.session_state.get(f"{KEY}.samples") or 1)


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
        parts += [f"min p {sampling.min_p:g}"] if sampling.min_p is not None else []
        parts += [f"seed {sampling.seed}"] if sampling.seed is not None else []
    if sampling.repetition_penalty != 1:
        parts.append(f"repetition penalty {sampling.repetition_penalty:g}")
    return ", ".join(parts)
