"""Hyperparameters: what am I about to train?"""

from __future__ import annotations

import streamlit as st

from gptlab.corpus import CorpusError, open_corpus
from gptlab.dataset import check_lengths
from gptlab.estimate import estimate
from pages.shared.config_file import config_file
from pages.shared.config_form import advanced_fields, basic_fields, changed_fields
from pages.shared.draft import back_to_base, base_of, read_draft
from pages.shared.forking import fork_banner
from pages.shared.grid_form import grid_form
from pages.shared.look import escape
from pages.shared.outlook import outlook, rate_figure
from pages.shared.page_top import page_top
from pages.shared.preset_cards import preset_cards
from pages.shared.reading import read
from pages.shared.sanity import sanity_check
from pages.shared.store import store

STAYS_IN_SIGHT = """<style>@media (min-width: 641px) {
[data-testid="stColumn"]:has(.st-key-outlook) > [data-testid="stVerticalBlock"] { position: sticky; top: 4.5rem;
  height: fit-content; } }
</style>"""


def main() -> None:
    page_top("Hyperparameters", "What am I about to train?", "Go to training", "pages/training.py")
    draft = read_draft()
    config = draft.config
    try:
        corpus = open_corpus(config.data.corpus, download=False)
    except CorpusError as error:
        st.error(escape(str(error)))
        st.page_link("pages/corpus.py", label="Choose a text", icon=":material/menu_book:")
        return
    reading = read(corpus, config.data.train_ratio)
    n_train, n_val = len(reading.train), len(reading.val)
    preset_cards(n_train, n_val)
    fork_banner(draft)

    form, figures = st.columns([3, 2], gap="large")
    with form:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.subheader("Settings", anchor=False, width="stretch")
            base, base_name = base_of(draft)
            changed = changed_fields(config, base)
            st.button(
                f"Back to {base_name}" + (f" ({len(changed)} changed)" if changed else ""),
                icon=":material/undo:",
                type="tertiary",
                disabled=not changed,
                key="reset-all",
                on_click=back_to_base,
            )
        inputs = basic_fields()
        with st.expander("Advanced"):
            advanced_fields(inputs)
        with st.expander("Several runs, one after another", key="several"):
            grid_form(n_train, n_val)
        with st.expander("Save or load"):
            config_file()
    with figures, st.container(key="outlook"):
        st.html(STAYS_IN_SIGHT)
        st.subheader("What that means", anchor=False)
        st.markdown(f":gray[On {escape(corpus.name)}.]")
        if inputs.held:
            st.caption("An impossible value is left out of these figures.")
        outlook(config, n_train, n_val, idle=not any(run.is_locked() for run in store().list()))
        sanity_check(n_train, n_val, config, check_lengths(n_train, n_val, config))
        st.caption("Learning rate over the run")
        st.plotly_chart(
            rate_figure(config, estimate(config, n_train, n_val).total_steps),
            config={"displayModeBar": False},
            key="rate",
            alt="The learning rate of every step",
        )


main()
