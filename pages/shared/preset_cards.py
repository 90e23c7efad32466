"""The presets as cards."""

from __future__ import annotations

import streamlit as st

from gptlab.config import PRESET_NOTES, PRESETS
from gptlab.estimate import n_parameters
from pages.shared.draft import REFERENCE_PRESET, choose_preset, read_draft
from pages.shared.exercise import exercise_button
from pages.shared.look import duration, number, roughly
from pages.shared.predicted import preset_seconds, rough_preset_seconds

SHOWN = ("tiny", "small", REFERENCE_PRESET)


def preset_cards(n_train: int, n_val: int) -> None:
    """Three presets, the larger ones folded away. A click puts one into the draft; text and prompts stay."""
    with st.grid(3, min_column_width=240, gap="small"):
        for name in SHOWN:
            _card(name, n_train, n_val)
    with st.expander("Larger models, for large GPUs"), st.grid(3, min_column_width=240, gap="small"):
        for name in PRESETS:
            if name not in SHOWN:
                _card(name, n_train, n_val)


def _card(name: str, n_train: int, n_val: int) -> None:
    draft, config = read_draft(), PRESETS[name]
    with st.container(border=True, height="stretch", key=f"preset-{name}"):
        suffix = " · the reference exercise" if name == REFERENCE_PRESET else ""
        mark = " :primary[:material/check_circle:]" if draft.preset == name and draft.fork is None else ""
        st.markdown(f"**{name}**{suffix}{mark}")
        model = config.model
        facts = [f"{number(n_parameters(model) / 1e6, 1)} M parameters"]
        if seconds := preset_seconds(name, draft.config, n_train, n_val):
            facts.append(f"about {duration(seconds)} here")
        elif seconds := rough_preset_seconds(name, draft.config, n_train, n_val):
            facts.append(f"roughly {roughly(seconds)} here")
        st.markdown(
            f":gray[{PRESET_NOTES[name]}]  \n:gray[:small[{' · '.join(facts)}]]  \n"
            f":gray[:small[{model.n_layers} layers, width {model.emb_dim}, context {model.context_length}]]"
        )
        st.space("stretch")
        with st.container(horizontal=True):
            if draft.preset == name and draft.fork is None:
                st.button("Chosen", key=f"choose-{name}", disabled=True)
            else:
                st.button(f"Choose {name}", key=f"choose-{name}", on_click=choose_preset, args=(name,))
            if name == REFERENCE_PRESET:
                exercise_button("Run the exercise")
