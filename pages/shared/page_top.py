"""The head of a page that leads on to the next: its question, and beside it the page's one primary button."""

from __future__ import annotations

import streamlit as st

from pages.shared.draft import FAULT
from pages.shared.look import escape


def page_top(title: str, question: str, onward: str, page: str) -> None:
    """The title; below it the question and, at the right, the button that goes on to ``page``. Then what went wrong."""
    st.title(title, anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f":gray[{question}]", width="stretch")
        icon = ":material/arrow_forward:"
        if st.button(onward, type="primary", icon=icon, icon_position="right", key="onward"):
            st.switch_page(page)
    if fault := st.session_state.get(FAULT):
        st.error(escape(fault), icon=":material/error:")
